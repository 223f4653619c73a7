package hosttable

import (
	"testing"
	"unsafe"

	"noroshi/event"
)

func key(i int) event.Addr {
	return event.AddrOf4([4]byte{byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i)})
}

func TestTable(t *testing.T) {
	tab := New[uint32](100_000, 1000, 42)
	for round := range 3 {
		for i := range 50_000 {
			k := key(i)
			e, before := tab.Get(&k, 1)
			if e.Key != k || e.V != uint32(round) || (before == 0) != (round == 0) {
				t.Fatalf("round %d, key %d: %+v, before %d", round, i, e, before)
			}
			e.V++
		}
	}
	if tab.Len() != 50_000 || tab.Evicted() != 0 {
		t.Errorf("%d entries, %d evicted", tab.Len(), tab.Evicted())
	}
	absent := key(1 << 30)
	if tab.Find(&absent) != nil {
		t.Error("found what was never there")
	}
	for i := range 50_000 {
		k := key(i)
		if e := tab.Find(&k); e == nil || e.V != 3 {
			t.Fatalf("key %d: %+v", i, e)
		}
	}
}

// However many keys come, memory stays in its bound, and an entry in use
// (Slot) or touched all the time stays.
func TestBound(t *testing.T) {
	const most = 10_000
	tab := New[uint32](most, 1<<30, 42)
	pinned, busy := key(1<<31), key(1<<31+1)
	e, _ := tab.Get(&pinned, 1)
	e.Slot = 7
	tab.Get(&busy, 1)
	for i := range 1_000_000 {
		k := key(i)
		tab.Get(&k, uint32(i+2))
		if i%100 == 0 {
			tab.Get(&busy, uint32(i+2))
		}
	}
	if limit := 4 * most * int(unsafe.Sizeof(Entry[uint32]{})); tab.Bytes() > limit {
		t.Errorf("%d octets, want at most %d", tab.Bytes(), limit)
	}
	if e := tab.Find(&pinned); e == nil || e.Slot != 7 {
		t.Errorf("an entry in use was given up: %+v", e)
	}
	if tab.Find(&busy) == nil {
		t.Error("a busy entry was given up")
	}
	if tab.Evicted() == 0 {
		t.Error("evictions aren't counted")
	}
}

// Idle entries make room without growing and without being counted as evicted.
func TestIdle(t *testing.T) {
	tab := New[uint32](1<<20, 10, 42)
	for i := range 10_000 {
		k := key(i)
		tab.Get(&k, 1)
	}
	size := tab.Bytes()
	for i := range 3_000_000 {
		k := key(20_000 + i)
		tab.Get(&k, uint32(100+i/1000))
	}
	if tab.Bytes() > 8*size || tab.Evicted() != 0 {
		t.Errorf("%d octets after %d, %d evicted", tab.Bytes(), size, tab.Evicted())
	}
}

func TestNoAllocation(t *testing.T) {
	tab := New[uint32](1000, 10, 42)
	for i := range 1000 {
		k := key(i)
		tab.Get(&k, 1)
	}
	i := 0
	if n := testing.AllocsPerRun(1000, func() { k := key(i % 1000); i++; tab.Get(&k, 2) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkGet(b *testing.B) {
	for _, n := range []int{100_000, 10_000_000} {
		b.Run(map[bool]string{true: "100k", false: "10M"}[n == 100_000], func(b *testing.B) {
			tab := New[uint32](n, 1<<30, 42)
			for i := range n {
				k := key(i)
				tab.Get(&k, 1)
			}
			b.ReportAllocs()
			x := uint64(1)
			for b.Loop() {
				x = event.Mix(x + 1)
				k := key(int(x % uint64(n)))
				tab.Get(&k, 2)
			}
			b.ReportMetric(float64(tab.Bytes())/1e6, "MB")
		})
	}
}
