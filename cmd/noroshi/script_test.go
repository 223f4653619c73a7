package main

import (
	"database/sql"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"noroshi/event"
	"noroshi/source/packet"
)

// asNoroshi makes the test binary the program itself: for tests that need a
// process of their own.
const asNoroshi = "NOROSHI_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asNoroshi) != "" {
		main()
		return
	}
	testscript.Main(m, map[string]func(){"noroshi": main})
}

// The command line as people use it: testdata/*.txtar. Beside testscript's own
// commands there are
//
//	capture FILE attack|quiet|empty   write a capture
//	cut FILE N                        drop the last N octets
//	occupy udp|tcp NAME               use up a port of loopback and set $NAME to it
//	expand FILE...                    put variables into files
//	tamper FILE SQL                   change a state's file behind noroshi's back
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			env.Setenv("LANG", "C.UTF-8")
			env.Setenv("NO_COLOR", "1")
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"capture": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(writeCapture(ts.MkAbs(args[0]), args[1]))
			},
			"cut": func(ts *testscript.TestScript, _ bool, args []string) {
				info, err := os.Stat(ts.MkAbs(args[0]))
				ts.Check(err)
				n, err := strconv.ParseInt(args[1], 10, 64)
				ts.Check(err)
				ts.Check(os.Truncate(ts.MkAbs(args[0]), info.Size()-n))
			},
			"occupy": func(ts *testscript.TestScript, _ bool, args []string) {
				var addr net.Addr
				if args[0] == "udp" {
					c, err := net.ListenPacket("udp", "127.0.0.1:0")
					ts.Check(err)
					ts.Defer(func() { _ = c.Close() })
					addr = c.LocalAddr()
				} else {
					l, err := net.Listen("tcp", "127.0.0.1:0")
					ts.Check(err)
					ts.Defer(func() { _ = l.Close() })
					addr = l.Addr()
				}
				_, port, err := net.SplitHostPort(addr.String())
				ts.Check(err)
				ts.Setenv(args[1], port)
			},
			"tamper": func(ts *testscript.TestScript, _ bool, args []string) {
				db, err := sql.Open("sqlite", ts.MkAbs(args[0]))
				ts.Check(err)
				_, err = db.Exec(args[1])
				ts.Check(errors.Join(err, db.Close()))
			},
			"expand": func(ts *testscript.TestScript, _ bool, args []string) {
				for _, name := range args {
					text := os.Expand(ts.ReadFile(name), ts.Getenv)
					ts.Check(os.WriteFile(ts.MkAbs(name), []byte(text), 0o644))
				}
			},
		},
	})
}

// writeCapture writes a pcap file. "attack" has 400 NTP servers that answer
// 198.51.100.7, which asked none, for a second.
func writeCapture(path, kind string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	w, err := packet.NewWriter(f, packet.Raw)
	if err != nil {
		return err
	}
	at := event.TimeOf(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
	n := map[string]int{"attack": 2000, "quiet": 20, "empty": 0}[kind]
	for i := range n {
		src := [4]byte{192, 0, byte(i % 400 / 200), byte(i % 200)}
		size := 440
		if kind == "quiet" {
			src, size = [4]byte{192, 0, 2, 1}, 48
		}
		if err := w.Write(at.Add(time.Duration(i)*500*time.Microsecond), udpPacket(src, [4]byte{198, 51, 100, 7}, 123, 40000, size)); err != nil {
			return err
		}
	}
	return w.Flush()
}

// udpPacket is an IPv4 packet of UDP with a payload of size zeros. Its checksums
// are left out.
func udpPacket(src, dst [4]byte, sport, dport uint16, size int) []byte {
	p := make([]byte, 28+size)
	p[0], p[8], p[9] = 0x45, 60, 17
	be := binary.BigEndian
	be.PutUint16(p[2:], uint16(len(p)))
	copy(p[12:], src[:])
	copy(p[16:], dst[:])
	be.PutUint16(p[20:], sport)
	be.PutUint16(p[22:], dport)
	be.PutUint16(p[24:], uint16(8+size))
	return p
}
