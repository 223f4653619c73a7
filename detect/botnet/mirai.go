package botnet

import (
	"encoding/binary"
	"strings"

	"noroshi/event"
	"noroshi/intel"
)

// What follows reads the conversations of Mirai as its published source code
// speaks them (jgamblin/Mirai-Source-Code at 4889a6f: bot/scanner.c, bot/main.c,
// bot/attack.c, cnc/attack.go). All are plain text in the sense that nothing is
// encrypted. Readers are strict: what is left over, or not printable where the
// bot writes text, is somebody else's conversation.

// Report is what a bot tells the scan receiver: a device whose password it has
// guessed.
type Report struct {
	Device         event.Addr
	Port           uint16
	User, Password string
}

// ParseReport reads a whole scan report: 0, the address, the port, and user and
// password each behind an octet of length; or without the 0 and the port, which
// is then 23.
func ParseReport(p string) (r Report, ok bool) {
	if len(p) < 8 || len(p) > 80 {
		return r, false
	}
	r.Port = 23
	if p[0] == 0 {
		r.Device, r.Port = event.AddrOf4([4]byte{p[1], p[2], p[3], p[4]}), uint16(p[5])<<8|uint16(p[6])
		p = p[7:]
	} else {
		r.Device = event.AddrOf4([4]byte{p[0], p[1], p[2], p[3]})
		p = p[4:]
	}
	if r.User, p, ok = field(p); !ok || r.User == "" {
		return r, false
	}
	if r.Password, p, ok = field(p); !ok || p != "" || r.Port == 0 {
		return r, false
	}
	first := r.Device[12]
	return r, first != 0 && first != 127 && first < 224
}

// field cuts a printable text behind an octet of length.
func field(p string) (text, rest string, ok bool) {
	if p == "" || int(p[0]) > len(p)-1 || p[0] > 32 {
		return "", "", false
	}
	text, rest = p[1:1+p[0]], p[1+p[0]:]
	return text, rest, printable(text)
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return true
}

// handshake is what a bot says first to its control server; keepAlive what both
// say from then on.
const (
	handshake = "\x00\x00\x00\x01"
	keepAlive = "\x00\x00"
)

// isHandshake reports whether p begins a bot's session, perhaps with its name
// (an octet of length below 32, and text) in the same segment.
func isHandshake(p string) (name string, ok bool) {
	if !strings.HasPrefix(p, handshake) {
		return "", false
	}
	if p = p[len(handshake):]; p == "" {
		return "", true
	}
	name, rest, ok := field(p)
	return name, ok && rest == "" && len(name) < 32
}

// Command is an order to attack.
type Command struct {
	Seconds uint32 // how long
	Vector  uint8  // see package intel
	Targets []Target
	Options []Option
}

// Target is one victim, or a prefix of them.
type Target struct {
	Addr event.Addr // IPv4
	Bits uint8      // 1 to 32
}

// Option is a key with its value: 7 is the destination port, 8 the domain.
type Option struct {
	Key   uint8
	Value string
}

// Keys of options that name the victim further.
const (
	optionPort   = 7
	optionDomain = 8
)

// maxSeconds is the longest attack that the published control server allows.
const maxSeconds = 3600

// ParseCommand reads a whole command: its length, itself included, in two
// octets; seconds in four; the vector; the number of targets, each an address
// and a prefix length; the number of options, each a key, a length and a text.
func ParseCommand(p string) (c Command, ok bool) {
	if len(p) < 14 || len(p) > event.MaxPayload || int(p[0])<<8|int(p[1]) != len(p) {
		return c, false
	}
	c.Seconds = binary.BigEndian.Uint32([]byte(p[2:6]))
	c.Vector = p[6]
	n := int(p[7])
	p = p[8:]
	if c.Seconds == 0 || c.Seconds > maxSeconds || vectorOf(c.Vector) == nil || n == 0 || len(p) < 5*n+1 {
		return c, false
	}
	for range n {
		t := Target{event.AddrOf4([4]byte{p[0], p[1], p[2], p[3]}), p[4]}
		if t.Bits == 0 || t.Bits > 32 {
			return c, false
		}
		c.Targets = append(c.Targets, t)
		p = p[5:]
	}
	n, p = int(p[0]), p[1:]
	for range n {
		if len(p) < 2 || len(p) < 2+int(p[1]) {
			return c, false
		}
		o := Option{p[0], p[2 : 2+p[1]]}
		if !printable(o.Value) {
			return c, false
		}
		c.Options = append(c.Options, o)
		p = p[2+len(o.Value):]
	}
	return c, p == ""
}

// option returns the value of an option, or "".
func (c *Command) option(key uint8) string {
	for _, o := range c.Options {
		if o.Key == key {
			return o.Value
		}
	}
	return ""
}

func vectorOf(id uint8) *intel.Vector {
	list := intel.Mirai().Vectors
	for i := range list {
		if list[i].ID == id {
			return &list[i]
		}
	}
	return nil
}

// token returns the word in capitals that a loader or a bot asks busybox for,
// only to see it refused: a sign between its two halves, different from one
// variant to the next.
func token(p string) string {
	const ask = "/bin/busybox "
	for {
		i := strings.Index(p, ask)
		if i < 0 {
			return ""
		}
		p = p[i+len(ask):]
		n := 0
		for n < len(p) && p[n] >= 'A' && p[n] <= 'Z' {
			n++
		}
		if n >= 4 && n <= 16 && (n == len(p) || p[n] == '\r' || p[n] == '\n' || p[n] == ';' || p[n] == ' ') {
			return p[:n]
		}
	}
}

// download returns the host that a shell line fetches a program from, or "".
func download(p string) string {
	for _, ask := range []string{"wget http://", "curl http://", "curl -O http://", "wget -g ", "tftp -g ", "tftp "} {
		i := strings.Index(p, ask)
		if i < 0 {
			continue
		}
		host := p[i+len(ask):]
		if j := strings.IndexAny(host, "/ :;\r\n"); j >= 0 {
			host = host[:j]
		}
		if host != "" && len(host) <= 64 && printable(host) && strings.Contains(host, ".") {
			return host
		}
	}
	return ""
}
