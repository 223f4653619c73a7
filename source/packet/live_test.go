package packet

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"noroshi/event"
)

// A datagram sent over the loopback interface is seen once, payload and all.
func TestLive(t *testing.T) {
	l, err := OpenLive(LiveConfig{Interface: "lo", Buffer: 4 << 20, Fanout: 2})
	if err != nil && strings.Contains(err.Error(), "not permitted") {
		t.Skipf("SKIPPED: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	const word = "noroshi live test"
	seen := make(chan event.Flow, 100)
	done := make(chan error)
	go func() {
		done <- l.Run(ctx, func(b *event.Batch) {
			for i := range b.Flows {
				if b.Text(b.Flows[i].Payload) == word {
					seen <- b.Flows[i]
				}
			}
			b.Release()
		})
	}()
	to, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	from, err := net.Dial("udp", to.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	if _, err := from.Write([]byte(word)); err != nil {
		t.Fatal(err)
	}
	select {
	case f := <-seen:
		if f.Bytes != uint64(28+len(word)) || f.Proto != event.UDP || int(f.DstPort) != to.LocalAddr().(*net.UDPAddr).Port || f.Seen == 0 {
			t.Errorf("%+v", f)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the datagram was not seen")
	}
	time.Sleep(100 * time.Millisecond)
	if len(seen) != 0 {
		t.Error("the datagram was seen twice")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	for c := range l.Counts() {
		if c.Name == "packets" && c.Value == 0 {
			t.Error("no packet was counted")
		}
	}
}

// What the kernel had no room for in the ring is counted.
func TestLiveDrops(t *testing.T) {
	l, err := OpenLive(LiveConfig{Interface: "lo", Buffer: 2 << 20})
	if err != nil && strings.Contains(err.Error(), "not permitted") {
		t.Skipf("SKIPPED: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	to, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	from, err := net.Dial("udp", to.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	const sent = 5000 // 7 MB, each seen twice on this interface
	for range sent {
		if _, err := from.Write(make([]byte, 1400)); err != nil {
			t.Fatal(err)
		}
	}
	counted := func() (packets, lost uint64) {
		for c := range l.Counts() {
			switch {
			case c.Name == "packets":
				packets = c.Value
			case c.Reason == "kernel ring full":
				lost = c.Value
			}
		}
		return packets, lost
	}
	if _, lost := counted(); lost == 0 {
		t.Error("no loss is known")
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	got := make(chan struct{}, 1)
	go func() {
		done <- l.Run(ctx, func(b *event.Batch) {
			b.Release()
			select {
			case got <- struct{}{}:
			default:
			}
		})
	}()
	<-got
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if packets, lost := counted(); packets == 0 || packets+lost < sent || lost > 2*sent+1000 {
		t.Errorf("%d packets and %d lost of %d", packets, lost, sent)
	}
}

func TestLiveErrors(t *testing.T) {
	if _, err := OpenLive(LiveConfig{Interface: "nosuch0"}); err == nil || !strings.Contains(err.Error(), `no interface "nosuch0"`) || !strings.Contains(err.Error(), "lo") {
		t.Errorf("%v", err)
	}
}
