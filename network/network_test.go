package network

import (
	"net/netip"
	"strings"
	"testing"

	"noroshi/event"
)

func prefixes(s ...string) (ps []netip.Prefix) {
	for _, s := range s {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

func TestLookup(t *testing.T) {
	table, err := New([]Network{
		{Name: "homes", Kind: Residential, Prefixes: prefixes("10.0.0.0/8", "2001:db8::/32")},
		{Name: "resolver", Kind: Resolver, Prefixes: prefixes("10.9.9.0/24", "2001:db8:53::/48")},
	})
	if err != nil {
		t.Fatal(err)
	}
	f := func(addr, want string) {
		t.Helper()
		if got := table.At(table.Lookup(event.AddrOf(netip.MustParseAddr(addr)))).Name; got != want {
			t.Errorf("%s is in %q, want %q", addr, got, want)
		}
	}
	f("10.1.2.3", "homes")
	f("10.9.9.9", "resolver") // the longer prefix
	f("2001:db8::1", "homes")
	f("2001:db8:53::1", "resolver")
	f("10.9.8.255", "homes") // beside it, in the same /16
	f("9.255.255.255", "")
	f("11.0.0.0", "")
	f("192.0.2.1", "")
	f("3fff::1", "")

	var b event.Batch
	if err := b.AppendLine("flow +0s 10.9.9.9:53 > 10.1.2.3:4000 udp", 1); err != nil {
		t.Fatal(err)
	}
	table.Annotate(&b)
	if f := b.Flows[0]; table.At(f.SrcNet).Name != "resolver" || table.At(f.DstNet).Name != "homes" {
		t.Errorf("annotated as %d, %d", f.SrcNet, f.DstNet)
	}
}

// The nil table and the empty one know nothing and fail nowhere.
func TestUnknown(t *testing.T) {
	empty, err := New(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range []*Table{nil, empty} {
		var b event.Batch
		b.NewFlow()
		table.Annotate(&b)
		if table.Known() || table.Len() != 1 || table.Lookup(event.Addr{1}) != 0 || table.At(0).Name != "" {
			t.Error("an empty table knows something")
		}
	}
}

func TestMistakes(t *testing.T) {
	_, err := New([]Network{
		{Name: "a", Kind: "homes", Prefixes: prefixes("10.0.0.0/8")},
		{Name: "a", Prefixes: prefixes("10.0.0.0/8", "192.0.2.1/24")},
		{Name: "b"},
	})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{`unknown kind "homes"`, "a name of its own", "10.0.0.0/8 stands twice", "meant 192.0.2.0/24?", `"b": has no prefixes`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v\ndoesn't say %q", err, want)
		}
	}
}

func TestLookupAllocates(t *testing.T) {
	table, _ := New([]Network{{Name: "a", Prefixes: prefixes("10.0.0.0/8")}})
	var b event.Batch
	b.NewFlow().Src = event.AddrOf4([4]byte{10, 1, 2, 3})
	if n := testing.AllocsPerRun(100, func() { table.Annotate(&b) }); n != 0 {
		t.Errorf("%v allocations a batch", n)
	}
}

func BenchmarkAnnotate(b *testing.B) {
	var ns []Network
	for i := range 64 {
		ns = append(ns, Network{Name: string(rune('A' + i)), Prefixes: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i * 4), 0, 0}), 14)}})
	}
	table, err := New(ns)
	if err != nil {
		b.Fatal(err)
	}
	var batch event.Batch
	for i := range 1000 {
		f := batch.NewFlow()
		f.Src, f.Dst = event.AddrOf4([4]byte{10, byte(i), byte(i >> 8), 1}), event.AddrOf4([4]byte{198, 18, byte(i), 1})
	}
	b.ReportAllocs()
	for range b.N / 1000 {
		table.Annotate(&batch)
	}
}
