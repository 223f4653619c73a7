package history

import (
	"reflect"
	"strings"
	"testing"
)

func TestParseFilter(t *testing.T) {
	f := func(in string, kind Kind, want ...Condition) {
		t.Helper()
		got, err := ParseFilter(in)
		if err != nil || !reflect.DeepEqual(got, Filter(want)) {
			t.Errorf("%q: %+v, %v", in, got, err)
		}
		if err := got.Check(kind); err != nil {
			t.Errorf("%q: %v", in, err)
		}
		if again, err := ParseFilter(got.String()); err != nil || !reflect.DeepEqual(again, got) {
			t.Errorf("%q became %q: %+v, %v", in, got, again, err)
		}
	}
	f("", Flows)
	f("dst=192.0.2.0/24 proto=udp", Flows, Condition{"dst", Equal, false, []string{"192.0.2.0/24"}}, Condition{"proto", Equal, false, []string{"udp"}})
	f("  dst_port!=53,1-99  bytes>=1000 ", Flows, Condition{"dst_port", Equal, true, []string{"53", "1-99"}}, Condition{"bytes", AtLeast, false, []string{"1000"}})
	f("name~example name!~\"a b\\x00,\"", DNS, Condition{"name", Contains, false, []string{"example"}}, Condition{"name", Contains, true, []string{"a b\x00,"}})
	f("message~~failed", Logs, Condition{"message", Word, false, []string{"failed"}})
	f("tcp_flags&SYN tcp_flags!&ack+RST src.country=JP", Flows, Condition{"tcp_flags", Bits, false, []string{"SYN"}}, Condition{"tcp_flags", Bits, true, []string{"ack+RST"}}, Condition{"src.country", Equal, false, []string{"JP"}})
	f(`name="" type=AAAA rcode=nxdomain role=client-query`, DNS, Condition{"name", Equal, false, []string{""}}, Condition{"type", Equal, false, []string{"AAAA"}}, Condition{"rcode", Equal, false, []string{"nxdomain"}}, Condition{"role", Equal, false, []string{"client-query"}})
	f("seen>=2026-11-24T00:00:00Z dst=::1", Flows, Condition{"seen", AtLeast, false, []string{"2026-11-24T00:00:00Z"}}, Condition{"dst", Equal, false, []string{"::1"}})

	bad := func(in string, kind Kind, want string) {
		t.Helper()
		got, err := ParseFilter(in)
		if err == nil {
			err = got.Check(kind)
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", in, err, want)
		}
	}
	bad("dst", Flows, "want one of =")
	bad("=53", Flows, "is no condition")
	bad("dst=", Flows, "value is missing")
	bad("dst=a,", Flows, "value is missing")
	bad(`name="a`, DNS, "no end")
	bad(`name="a"b`, DNS, "comma or a space")
	bad(`name=a"b`, DNS, "in quotes")
	bad("bytes!<5", Flows, "there is no !<")
	bad("colour=red", Flows, "they have first, last, seen, src")
	bad("bytes=many", Flows, "is no number")
	bad("bytes=9-1", Flows, "is no number")
	bad("bytes~5", Flows, "a number has")
	bad("proto=quic", Flows, "neither a number nor a name")
	bad("tcp_flags&SIN", Flows, "none of its bits")
	bad("dst=300.0.0.1", Flows, "no address or prefix")
	bad("dst>192.0.2.1", Flows, "an address has only")
	bad("name<5", DNS, "a text has")
	bad(`message~~"two words"`, Logs, "no single word")
	bad("seen=yesterday", Flows, "is no time")
	bad("dst_port.as=1", Flows, "no column")
	bad(strings.Repeat("bytes=1 ", MaxConditions+1), Flows, "more than")
}

func FuzzParseFilter(f *testing.F) {
	f.Add("dst=192.0.2.0/24 proto!=udp,tcp name~\"a\\x00\" tcp_flags&SYN bytes<=5")
	f.Fuzz(func(t *testing.T, in string) {
		got, err := ParseFilter(in)
		if err != nil {
			return
		}
		again, err := ParseFilter(got.String())
		if err != nil || !reflect.DeepEqual(got, again) {
			t.Fatalf("%q became %q, which is %+v, %v", in, got.String(), again, err)
		}
		for _, k := range Kinds {
			var s statement
			if got.where(&s, Layout{Database: "x"}, k) != nil {
				continue
			}
			// No text of the filter is in the statement: without the names of
			// columns and parameters only our own words are left.
			for _, c := range got {
				for _, v := range c.Values {
					if len(v) > 12 && strings.Contains(s.conditions(), v) {
						t.Fatalf("%q is in %s", v, s.conditions())
					}
				}
			}
		}
	})
}

// Every column has a meaning, and every word belongs to a column.
func TestWords(t *testing.T) {
	for _, k := range Kinds {
		for _, c := range k.Columns() {
			if c.What == "" {
				t.Errorf("%v.%s: say what it is", k, c.Name)
			}
		}
		if len(meaning[k]) != len(tables[k].columns) {
			t.Errorf("%v: %d meanings for %d columns", k, len(meaning[k]), len(tables[k].columns))
		}
	}
	for column, list := range words {
		for w, n := range list {
			if got, err := parseNumber(column, strings.ToUpper(w)); err != nil || got != n || Describe(column, n) != w {
				t.Errorf("%s %s: %d, %v, described as %s", column, w, got, err, Describe(column, n))
			}
		}
	}
	for _, h := range holders {
		tables[h.kind].column(h.column) // panics if there is none
		if h.port != "" {
			tables[h.kind].column(h.port)
		}
	}
}
