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

func TestLiveErrors(t *testing.T) {
	if _, err := OpenLive(LiveConfig{Interface: "nosuch0"}); err == nil || !strings.Contains(err.Error(), `no interface "nosuch0"`) || !strings.Contains(err.Error(), "lo") {
		t.Errorf("%v", err)
	}
}
