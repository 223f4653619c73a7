// Package config reads noroshi's configuration: one YAML file, every key of
// which has a default. It reports all mistakes at once, each with its line, its
// key and how to mend it.
//
// A file is a File, which is made of the components' own Configs. The name of a
// key is the name of its field in snake case, unless a yaml tag says otherwise.
// Durations carry a unit (30s, 14d); numbers may carry a decimal or a binary prefix
// (20k, 64Mi). Anchors, aliases and tags of YAML are refused.
package config

import (
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"noroshi/detect"
	"noroshi/detect/all"
	"noroshi/incident"
	"noroshi/network"
	"noroshi/source/packet"
	"noroshi/store/engine"
	"noroshi/store/history"
)

// File is a configuration.
type File struct {
	// Listen is for routers' exports.
	Listen Listen
	// Capture lists interfaces of this machine whose packets are examined.
	Capture []packet.LiveConfig
	// Networks are the provider's own. Without them every address may be a
	// victim or a subscriber.
	Networks []network.Network
	// Detect has the knobs of each detector by its Spec.Name: what Spec.Config
	// returned, changed by the file.
	Detect map[string]any
	// Shards is the number of goroutines that detect, a power of two up to 256;
	// 0 means as many as leave a core to the sources.
	Shards int
	// Incident rules how findings become incidents.
	Incident incident.Config
	// State is where incidents and decisions are kept: a file of SQLite, or a URL of
	// PostgreSQL (postgres://...), which has no password in it.
	State string
	// KeepClosed is how long members and evidence of closed incidents are kept
	// after their last evidence; 0 means for ever.
	KeepClosed time.Duration
	// Templates is the file in which exporters' templates outlive a restart;
	// empty means they don't.
	Templates string
	// Learned begins the names of the files in which what detectors learned
	// outlives a restart; empty means it doesn't.
	Learned string
	// History is where events are remembered.
	History history.Config
	// Engine is the embedded engine, which holds the history unless History says
	// otherwise.
	Engine engine.Config
	// HTTP is where the API, the stream of incidents and the metrics are
	// served: a loopback address.
	HTTP netip.AddrPort `yaml:"http"`

	// Table is made of Networks by Load; nil without it.
	Table *network.Table `yaml:"-"`
	// OwnListen says that the file names the addresses to listen on, and so
	// wants each of them.
	OwnListen bool `yaml:"-"`
}

// Listen says where routers' exports arrive. Every address takes every
// protocol: NetFlow v5 and v9, IPFIX, sFlow v5.
type Listen struct {
	Addresses []netip.AddrPort
	// Allow are the prefixes of the exporters listened to; empty means all.
	Allow []netip.Prefix
	// Sockets is how many sockets, each with a goroutine, share an address: 1 to 64.
	Sockets int
	// Buffer is the kernel's receive buffer for each socket, in octets.
	Buffer int
	// Sampling is the operator's word on exporters' sampling rates, trusted
	// above what NetFlow and IPFIX say themselves. The first entry that fits
	// counts.
	Sampling []Sampling
}

// Sampling is a rate: one packet in so many.
type Sampling struct {
	Exporter netip.Prefix
	Rate     uint32 // from 1
}

// Default returns the configuration of an empty file.
func Default() *File {
	f := &File{
		Listen: Listen{
			Sockets: 1, Buffer: 64 << 20,
			Addresses: []netip.AddrPort{
				netip.MustParseAddrPort("127.0.0.1:2055"), netip.MustParseAddrPort("[::1]:2055"), // NetFlow, by custom
				netip.MustParseAddrPort("127.0.0.1:4739"), netip.MustParseAddrPort("[::1]:4739"), // IPFIX (RFC 7011, 10.3.4)
				netip.MustParseAddrPort("127.0.0.1:6343"), netip.MustParseAddrPort("[::1]:6343"), // sFlow, by IANA
			},
		},
		Incident: incident.Config{Gap: 6 * time.Hour, Burst: 60, PerHour: 60, MaxMembers: 1 << 20},
		State:    "noroshi.db", KeepClosed: 400 * 24 * time.Hour,
		Templates: "noroshi.templates",
		Learned:   "noroshi.learned",
		History:   history.Default(),
		Engine:    engine.Default(),
		HTTP:      netip.MustParseAddrPort("127.0.0.1:8479"),
		Detect:    map[string]any{},
	}
	for _, s := range all.Specs {
		f.Detect[s.Name] = s.Config()
	}
	return f
}

// maxSize bounds a configuration file, in octets: 100,000 prefixes fit.
const maxSize = 4 << 20

// Load reads the file at path. When the file can't be read the error says why;
// when what it says is wrong the error is Mistakes.
func Load(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	if len(text) > maxSize {
		return nil, fmt.Errorf("configuration: %s is larger than %d MiB", path, maxSize>>20)
	}
	return Parse(path, text)
}

// Parse reads a configuration from text; name is what its mistakes call it.
func Parse(name string, text []byte) (*File, error) {
	f := Default()
	d := newDecoder(name)
	d.knobs["detect"] = f.Detect
	if root := d.parse(text); root != nil {
		d.into(root, "", reflect.ValueOf(f).Elem())
	}
	_, f.OwnListen = d.at["listen.addresses"]
	if len(d.mistakes) == 0 { // what couldn't be read can't be judged
		d.judge(f)
	}
	if len(d.mistakes) > 0 {
		slices.SortStableFunc(d.mistakes, func(a, b *Mistake) int {
			if a.Line != b.Line {
				return a.Line - b.Line
			}
			return a.Column - b.Column
		})
		return nil, d.mistakes
	}
	return f, nil
}

// judge finds what is readable and still wrong.
func (d *decoder) judge(f *File) {
	for i, a := range f.Listen.Addresses {
		if !a.IsValid() {
			d.wrongAt(fmt.Sprintf("listen.addresses[%d]", i), `write an address and a port, such as "[::1]:2055"`, "an empty element")
		}
	}
	for i, p := range f.Listen.Allow {
		d.checkPrefix(fmt.Sprintf("listen.allow[%d]", i), p)
	}
	for i, s := range f.Listen.Sampling {
		key := fmt.Sprintf("listen.sampling[%d]", i)
		if d.checkPrefix(key+".exporter", s.Exporter); s.Rate == 0 {
			d.wrongAt(key+".rate", "write N for a router that looks at one packet in N; 1 if it looks at all", "the rate is missing")
		}
	}
	d.between("listen.sockets", f.Listen.Sockets, 1, 64)
	d.between("listen.buffer", f.Listen.Buffer, 1<<16, 1<<30)
	for i, c := range f.Capture {
		key := fmt.Sprintf("capture[%d]", i)
		if c.Interface == "" {
			d.wrongAt(key, "add interface: with a name that ip link shows", "the interface is missing")
		}
		d.between(key+".fanout", c.Fanout, 0, 64)
		if c.Buffer != 0 {
			d.between(key+".buffer", c.Buffer, 2<<20, 1<<30)
		}
	}
	if n := f.Shards; n < 0 || n > 256 || n&(n-1) != 0 {
		d.wrongAt("shards", "write a power of two up to 256, or 0 for what suits this machine", "%d isn't a power of two", n)
	}
	if f.Incident.Gap < time.Minute {
		d.wrongAt("incident.gap", "write 1m or more; 6h is usual", "too short: each pause would open another incident")
	}
	d.between("incident.burst", f.Incident.Burst, 1, 1e6)
	d.between("incident.per_hour", f.Incident.PerHour, 1, 1e6)
	d.between("incident.max_members", f.Incident.MaxMembers, 1, 1<<26)
	if f.State == "" {
		d.wrongAt("state", "name a file, such as noroshi.db", "incidents must be kept somewhere")
	}
	d.judgeState(f.State)
	if f.KeepClosed != 0 && f.KeepClosed < 24*time.Hour {
		d.wrongAt("keep_closed", "write 24h or more, or 0 to keep them for ever; 9600h is 400 days", "what was closed today is still needed")
	}
	if f.State != "" && f.State == f.Templates {
		d.wrongAt("templates", "name another", "%s is the file of incidents", f.State)
	}
	f.History.Check(func(key string, err error) {
		d.wrongAt("history."+key, "docs/history.md says what it means", "%v", err)
	})
	f.Engine.Check(func(key string, err error) {
		d.wrongAt("engine."+key, "docs/engine.md says what it means", "%v", err)
	})
	if !f.HTTP.Addr().IsLoopback() {
		d.wrongAt("http", "use 127.0.0.1 or [::1]; from elsewhere reach it through ssh -L 8479:127.0.0.1:8479",
			"%v can be reached by others, and noroshi has no accounts and no TLS yet", f.HTTP)
	}
	d.judgeNetworks(f)
	for _, s := range all.Specs {
		if _, err := s.New(detect.Env{Config: f.Detect[s.Name], Network: f.Table}); err != nil {
			group := "detect." + s.Name
			d.wrongAt(d.named(group, err.Error()), "see noroshi.example.yaml for what it means", "%v", err)
		}
	}
}

// judgeState finds what is wrong with where the state is to be.
func (d *decoder) judgeState(name string) {
	scheme, _, isURL := strings.Cut(name, "://")
	if !isURL {
		return
	}
	const write = "write postgres://user@host:5432/database, or postgres:///database?host=/run/postgresql"
	if scheme != "postgres" && scheme != "postgresql" {
		d.wrongAt("state", "name a file, or "+write, "%s:// is neither a file nor PostgreSQL", scheme)
		return
	}
	u, err := url.Parse(name)
	if err != nil { // the error would show a password
		d.wrongAt("state", write, "the URL can't be read")
		return
	}
	_, inURL := u.User.Password()
	if query := u.Query(); inURL || query.Has("password") {
		d.wrongAt("state", "take it out, and name a file with it (host:port:database:user:password, mode 0600) by passfile=/etc/noroshi.pgpass behind the ? or in PGPASSFILE",
			"a password in the URL would be shown wherever the configuration is")
	} else if strings.Trim(u.Path, "/") == "" && !query.Has("dbname") {
		d.wrongAt("state", write, "the URL names no database")
	}
}

// named returns the first key of group in the file that text names, else group.
func (d *decoder) named(group, text string) string {
	best, where := group, len(text)
	for key := range d.at {
		name, ok := strings.CutPrefix(key, group+".")
		if i := strings.Index(text, name); ok && i >= 0 && (i < where || i == where && len(key) > len(best)) {
			best, where = key, i
		}
	}
	return best
}

func (d *decoder) between(key string, n, least, most int) {
	if n < least || n > most {
		d.wrongAt(key, fmt.Sprintf("write %d to %d", least, most), "%d is out of range", n)
	}
}

func (d *decoder) checkPrefix(key string, p netip.Prefix) {
	switch {
	case !p.IsValid():
		d.wrongAt(key, "write a prefix such as 192.0.2.0/24; /32 for one address", "the prefix is missing")
	case p.Masked() != p:
		d.wrongAt(key, fmt.Sprintf("did you mean %v?", p.Masked()), "%v has bits set behind its length", p)
	}
}

// judgeNetworks makes the table of networks and says at which line what is
// wrong with them.
func (d *decoder) judgeNetworks(f *File) {
	table, err := network.New(f.Networks)
	if err == nil {
		f.Table = table
		return
	}
	before := len(d.mistakes)
	names, taken := map[string]int{}, map[netip.Prefix]string{}
	for i, n := range f.Networks {
		key := fmt.Sprintf("networks[%d]", i)
		if first, doubled := names[n.Name]; n.Name == "" {
			d.wrongAt(key, "add name:", "the network has no name")
		} else if doubled {
			d.wrongAt(key+".name", "each network needs a name of its own", "%q is also the network's in line %d", n.Name, d.line(fmt.Sprintf("networks[%d]", first)))
		} else {
			names[n.Name] = i
		}
		if len(n.Prefixes) == 0 {
			d.wrongAt(key, "add prefixes: with a list", "the network has no prefixes")
		}
		for j, p := range n.Prefixes {
			key := fmt.Sprintf("%s.prefixes[%d]", key, j)
			first, doubled := taken[p]
			if d.checkPrefix(key, p); doubled {
				d.wrongAt(key, "a prefix belongs to one network; a longer one inside it may belong to another", "%v stands in line %d too", p, d.line(first))
			} else {
				taken[p] = key
			}
		}
		if _, err := network.New([]network.Network{{Name: "x", Kind: n.Kind, Prefixes: []netip.Prefix{netip.MustParsePrefix("::/0")}}}); err != nil {
			d.wrongAt(key+".kind", "write residential, mobile, business, server, resolver, shared or dark", "unknown kind %q", n.Kind)
		}
	}
	if len(d.mistakes) == before {
		d.wrongAt("networks", "", "%v", err)
	}
}

// wrongAt notes a mistake in the value of key, or in the group it is missing from.
func (d *decoder) wrongAt(key, fix, format string, args ...any) {
	d.wrong(d.at[d.present(key)], key, fix, format, args...)
}

// line returns the line of key's value.
func (d *decoder) line(key string) int {
	if n := d.at[d.present(key)]; n != nil {
		return startOf(n).Line
	}
	return 1
}

// present returns key, or the nearest group around it that is in the file.
func (d *decoder) present(key string) string {
	for d.at[key] == nil {
		i := strings.LastIndexAny(key, ".[")
		if i < 0 {
			return ""
		}
		key = key[:i]
	}
	return key
}

// SamplingOf returns the operator's word on the sampling rate of an exporter, 0
// for none.
func (l *Listen) SamplingOf(exporter netip.Addr) uint32 {
	for _, s := range l.Sampling {
		if s.Exporter.Contains(exporter) {
			return s.Rate
		}
	}
	return 0
}
