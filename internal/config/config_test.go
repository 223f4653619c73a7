package config

import (
	"encoding"
	"errors"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"noroshi/detect/flood"
	"noroshi/network"
)

var update = flag.Bool("update", false, "write the expected files")

// Each testdata/NAME.yaml is a file with mistakes; NAME.expected is what is said
// about them.
func TestMistakes(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no cases", err)
	}
	for _, path := range files {
		t.Run(filepath.Base(path), func(t *testing.T) {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			_, err = Parse(filepath.Base(path), text)
			var ms Mistakes
			if !errors.As(err, &ms) {
				t.Fatalf("no mistakes found: %v", err)
			}
			got := ms.Error() + "\n"
			golden := strings.TrimSuffix(path, ".yaml") + ".expected"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got\n%swant\n%s", got, want)
			}
		})
	}
}

func parse(t *testing.T, text string) *File {
	t.Helper()
	f, err := Parse("test.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestEmptyIsDefault(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "---\n", "listen:\n", "detect:\n  flood:\n"} {
		f := parse(t, text)
		f.Table = nil
		if want := Default(); !reflect.DeepEqual(f, want) {
			t.Errorf("%q: got %+v, want %+v", text, f, want)
		}
	}
}

func TestValues(t *testing.T) {
	f := parse(t, `
listen:
  addresses: ["0.0.0.0:9995", "[::]:9995"]
  allow: [192.0.2.1/32]
  buffer: 8Mi
  sampling:
    - {exporter: 192.0.2.1/32, rate: 1000}
    - {exporter: 0.0.0.0/0, rate: 1}
capture:
  - interface: eth0
    promiscuous: true
networks:
  - name: homes
    kind: residential
    prefixes: [198.51.100.0/24, 2001:db8::/32]
    host_pps: 1.5k
  - name: car park
    kind: mobile
    tenant: cars
    prefixes:
      - 198.51.100.128/25
shards: 2
incident: {gap: 30m}
detect:
  flood:
    host_pps: 20_000
    host_bps: 2G
    window: 250ms
http: "[::1]:9000"
`)
	if !f.OwnListen || len(f.Listen.Addresses) != 2 || f.Listen.Addresses[1] != netip.MustParseAddrPort("[::]:9995") {
		t.Errorf("listen: %v", f.Listen.Addresses)
	}
	if f.Listen.Buffer != 8<<20 || f.Listen.Sockets != 1 || f.Shards != 2 {
		t.Errorf("buffer %d, sockets %d, shards %d", f.Listen.Buffer, f.Listen.Sockets, f.Shards)
	}
	for a, want := range map[string]uint32{"192.0.2.1": 1000, "192.0.2.2": 1, "2001:db8::1": 0} {
		if got := f.Listen.SamplingOf(netip.MustParseAddr(a)); got != want {
			t.Errorf("sampling of %s: %d, want %d", a, got, want)
		}
	}
	if len(f.Capture) != 1 || !f.Capture[0].Promiscuous || f.Capture[0].Interface != "eth0" {
		t.Errorf("capture: %+v", f.Capture)
	}
	if len(f.Networks) != 2 || f.Networks[0].Kind != network.Residential || f.Networks[0].HostPPS != 1500 || f.Table.Len() != 3 || f.Networks[1].Tenant != "cars" {
		t.Errorf("networks: %+v", f.Networks)
	}
	if f.Incident.Gap != 30*time.Minute || f.Incident.Burst != 60 {
		t.Errorf("incident: %+v", f.Incident)
	}
	c := f.Detect["flood"].(*flood.Config)
	if c.HostPPS != 20000 || c.HostBPS != 2e9 || c.Window != 250*time.Millisecond || c.MinSources != 10 {
		t.Errorf("flood: %+v", c)
	}
	if f.HTTP != netip.MustParseAddrPort("[::1]:9000") {
		t.Errorf("http: %v", f.HTTP)
	}
}

func TestUnreadable(t *testing.T) {
	if _, err := Load(filepath.Join(t.TempDir(), "none.yaml")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that isn't there: %v", err)
	}
	if _, err := Load(t.TempDir()); err == nil {
		t.Error("a folder was read")
	}
}

func FuzzParse(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.yaml")
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Add("networks: [{name: a, prefixes: [0.0.0.0/0, ::/0]}]\ndetect: {flood: {window: 1s}}")
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 1<<12 {
			return
		}
		file, err := Parse("fuzz.yaml", []byte(text))
		var ms Mistakes
		switch {
		case err == nil:
			if file.State == "" || !file.HTTP.Addr().IsLoopback() {
				t.Errorf("accepted %+v", file)
			}
		case !errors.As(err, &ms):
			t.Errorf("an error without a place: %v", err)
		default:
			for i, m := range ms {
				if m.Line < 1 || m.Line > strings.Count(text, "\n")+strings.Count(text, "\r")+2 || m.Problem == "" {
					t.Errorf("%d lines; mistake at %d: %v", strings.Count(text, "\n")+1, m.Line, m)
				}
				if i > 0 && m.Line < ms[i-1].Line {
					t.Error("not in order")
				}
			}
		}
	})
}

// noroshi.example.yaml has every key, and its values are the defaults. Lines
// that begin with #: are the elements of lists that are empty by default.
func TestExample(t *testing.T) {
	const path = "../../noroshi.example.yaml"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	got := parse(t, string(text))
	got.Table, got.OwnListen = nil, false
	if want := Default(); !reflect.DeepEqual(got, want) {
		t.Errorf("the example is\n%+v\nthe defaults are\n%+v", got, want)
		for name, knobs := range want.Detect {
			if !reflect.DeepEqual(got.Detect[name], knobs) {
				t.Errorf("detect.%s is\n%+v\nthe defaults are\n%+v", name, got.Detect[name], knobs)
			}
		}
	}
	var whole strings.Builder
	for line := range strings.Lines(string(text)) {
		if indent, rest, ok := strings.Cut(line, "#: "); ok && strings.TrimSpace(indent) == "" {
			line = indent + rest
		}
		whole.WriteString(line)
	}
	d := newDecoder("example")
	f := Default()
	d.knobs["detect"] = f.Detect
	d.into(d.parse([]byte(whole.String())), "", reflect.ValueOf(f).Elem())
	if d.judge(f); len(d.mistakes) > 0 {
		t.Fatal(d.mistakes)
	}
	wantKeys(t, d, "", reflect.TypeFor[File]())
	for name, knobs := range f.Detect {
		wantKeys(t, d, "detect."+name+".", reflect.TypeOf(knobs).Elem())
	}
}

// wantKeys complains of each key of the struct t that d did not meet.
func wantKeys(t *testing.T, d *decoder, prefix string, typ reflect.Type) {
	t.Helper()
	for i, name := range fieldNames(typ) {
		if name == "" {
			continue
		}
		key, field := prefix+name, typ.Field(i).Type
		if d.at[key] == nil {
			t.Errorf("noroshi.example.yaml lacks %s", key)
			continue
		}
		text := reflect.PointerTo(field).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
		switch {
		case field.Kind() == reflect.Struct && !text:
			wantKeys(t, d, key+".", field)
		case field.Kind() == reflect.Slice && field.Elem().Kind() == reflect.Struct && field.Elem().NumField() > 0 && field.Elem().Field(0).IsExported():
			wantKeys(t, d, key+"[0].", field.Elem())
		}
	}
}

// Each block of YAML in the documents, and in the README, is a configuration.
func TestDocuments(t *testing.T) {
	files, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	more, _ := filepath.Glob("../../docs/*/*.md")
	n := 0
	for _, path := range append(append(files, more...), "../../README.md") {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range strings.Split(string(text), "```yaml\n")[1:] {
			block, _, _ := strings.Cut(part, "```")
			n++
			if _, err := Parse(filepath.Base(path), []byte(block)); err != nil {
				t.Errorf("%s:\n%s%v", path, block, err)
			}
		}
	}
	if n < 2 {
		t.Errorf("only %d blocks found", n)
	}
}
