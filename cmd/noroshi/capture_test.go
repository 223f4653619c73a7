package main

import (
	"encoding/binary"
	"net"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A bot whose packets pass an interface of this machine is an incident: SYNs with
// Mirai's mark, sent as frames over loopback.
func TestServeCapture(t *testing.T) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Skipf("SKIPPED: a raw socket needs CAP_NET_RAW: %v", err)
	}
	defer unix.Close(fd)
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	p := newPlace(t, t.TempDir())
	f, err := os.OpenFile(p.config, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("capture:\n  - interface: lo\n"); err != nil {
		t.Fatal(err)
	}
	f.Close()
	g := p.start(t)
	for i := range 30 {
		frame := marked([4]byte{10, 16, 0, 9}, [4]byte{203, 0, byte(i), byte(7 + i)})
		if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: lo.Index}); err != nil {
			t.Fatal(err)
		}
	}
	g.eventually("an incident about 10.16.0.9", func() bool {
		for _, in := range g.incidents() {
			if who := in.Subjects[0]; in.Kind == "iotbot.scan" && in.Family == "mirai" && in.Members == 1 {
				return who.String() == "10.16.0.9" && who.Role == "bot" && who.Network == "hosting"
			}
		}
		return false
	})
	if code := g.end(syscall.SIGTERM); code != exitOK {
		t.Errorf("exit code %d: %s", code, g.said())
	}
}

// marked is an Ethernet frame with a SYN as Mirai sends it to find telnet: its
// sequence number is its destination. Checksums are left out.
func marked(src, dst [4]byte) []byte {
	p := make([]byte, 14+20+20)
	be := binary.BigEndian
	be.PutUint16(p[12:], 0x0800)
	ip := p[14:]
	ip[0], ip[3], ip[8], ip[9] = 0x45, 40, 60, 6
	copy(ip[12:], src[:])
	copy(ip[16:], dst[:])
	tcp := ip[20:]
	be.PutUint16(tcp, 40000)
	be.PutUint16(tcp[2:], 23)
	copy(tcp[4:], dst[:])
	tcp[12], tcp[13] = 0x50, 0x02
	be.PutUint16(tcp[14:], 14600)
	return p
}
