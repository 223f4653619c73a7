package finding

import (
	"encoding/json"
	"net/netip"
	"testing"

	"noroshi/event"
)

func TestSubjectJSON(t *testing.T) {
	addr := func(s string) event.Addr { return event.AddrOf(netip.MustParseAddr(s)) }
	for _, c := range []struct {
		s    Subject
		want string
	}{
		{Host(addr("192.0.2.1"), "bot", "homes"), `{"address":"192.0.2.1","network":"homes","role":"bot"}`},
		{Host(addr("2001:db8::1"), "victim", ""), `{"address":"2001:db8::1","role":"victim"}`},
		{Subject{Addr: addr("192.0.2.0"), Bits: 24, Role: "victim"}, `{"prefix":"192.0.2.0/24","role":"victim"}`},
		{Subject{Addr: addr("2001:db8::"), Bits: 32, Role: "victim"}, `{"prefix":"2001:db8::/32","role":"victim"}`},
		{Subject{Network: "homes", Role: "victim"}, `{"network":"homes","role":"victim"}`},
		{Subject{Addr: addr("192.0.2.1"), Bits: 32, Port: 4242, Role: "bot", Share: .5}, `{"address":"192.0.2.1","port":4242,"role":"bot","share":0.5}`},
	} {
		got, err := json.Marshal(c.s)
		if err != nil || string(got) != c.want {
			t.Errorf("%v: %s, %v, want %s", c.s, got, err, c.want)
		}
		var back Subject
		if err := json.Unmarshal(got, &back); err != nil || back != c.s {
			t.Errorf("%s came back as %+v, %v", got, back, err)
		}
	}
}

func TestCauseJSON(t *testing.T) {
	for _, c := range []struct {
		c    Cause
		want string
	}{
		{Cause{Kind: "iotbot", Key: "mirai/23,2323/homes"}, `{"kind":"iotbot","key":"mirai/23,2323/homes"}`},
		{Cause{Kind: "flood", Target: event.AddrOf(netip.MustParseAddr("192.0.2.1")), Bits: 32}, `{"kind":"flood","target":"192.0.2.1/32"}`},
	} {
		got, err := json.Marshal(c.c)
		if err != nil || string(got) != c.want {
			t.Errorf("%+v: %s, %v, want %s", c.c, got, err, c.want)
		}
		var back Cause
		if err := json.Unmarshal(got, &back); err != nil || back != c.c {
			t.Errorf("%s came back as %+v, %v", got, back, err)
		}
	}
}
