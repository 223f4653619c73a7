package flood

import (
	"strings"

	"noroshi/event"
	"noroshi/intel"
)

// class is the kind of packet a flow is made of, as far as a flood could be.
type class uint8

// The classes. From amplified on, each amplifier of package intel has its own.
const (
	total class = iota // all that is suspicious, whatever its class
	fragments
	syn
	synACK
	ack
	rst
	blank // small TCP packets whose flags the router doesn't export
	tcp   // ordinary: data, handshakes and their ends in one record
	udp
	quic // data from port 443 or 80
	icmp
	gre
	esp
	other
	amplified
)

var classNames = [amplified]string{
	total: "mixed", fragments: "fragments", syn: "syn", synACK: "syn-ack-reflection", ack: "ack", rst: "rst",
	blank: "tcp-flags-unknown", tcp: "tcp", udp: "udp", quic: "udp-443", icmp: "icmp", gre: "gre", esp: "esp", other: "other-protocol",
}

// amplifierOf is the class of each UDP source port, 0 where it is none.
var amplifierOf = func() (of [1 << 16]class) {
	for i, a := range intel.Amplifiers() {
		of[a.Port] = amplified + class(i)
	}
	return of
}()

// String returns the vector's name, the family of a finding.
func (c class) String() string {
	if c < amplified {
		return classNames[c]
	}
	return intel.Amplifiers()[c-amplified].Vector
}

// title returns the words for a flood of this class.
func (c class) title() (en, ja string) {
	if c >= amplified {
		name := intel.Amplifiers()[c-amplified].Name
		return name + " amplification flood", name + "を悪用した増幅攻撃"
	}
	switch c {
	case fragments:
		return "flood of fragments", "フラグメントのフラッド攻撃"
	case synACK:
		return "SYN-ACK reflection flood", "SYN-ACK反射攻撃"
	case quic:
		return "UDP flood from port 443", "送信元443番ポートのUDPフラッド攻撃"
	case other:
		return "flood of an unusual protocol", "通常使われないプロトコルのフラッド攻撃"
	case blank:
		return "flood of small TCP packets (flags not exported)", "小さなTCPパケット(フラグ情報なし)のフラッド攻撃"
	case total:
		return "flood of several kinds", "複数種別のフラッド攻撃"
	}
	name := strings.ToUpper(c.String())
	return name + " flood", name + "フラッド攻撃"
}

// techniques returns the ATT&CK techniques of a flood of this class.
func (c class) techniques() []string {
	switch {
	case c >= amplified, c == synACK:
		return []string{"T1498.002"} // Reflection Amplification
	case c == syn, c == ack, c == rst, c == blank:
		return []string{"T1498.001", "T1499.001"} // Direct Network Flood, OS Exhaustion Flood
	}
	return []string{"T1498.001"}
}

// smallTCP is the mean length of IP packets, in octets, up to which TCP packets
// carry no data: two headers with 20 octets of options.
const smallTCP = 60

// classify returns the class of f.
func classify(f *event.Flow) class {
	if f.Marks&event.Fragment != 0 {
		return fragments
	}
	switch f.Proto {
	case event.UDP:
		if f.SrcPort == 0 && f.DstPort == 0 && f.Marks&event.OnePacket == 0 {
			return fragments // how routers report what has no ports
		}
		if a := amplifierOf[f.SrcPort]; a != 0 && f.Bytes >= f.Packets*uint64(intel.Amplifiers()[a-amplified].MinSize) {
			return a
		}
		if web(f.SrcPort) && f.Bytes > f.Packets*100 {
			return quic
		}
		return udp
	case event.TCP:
		small := f.Bytes <= f.Packets*smallTCP
		switch f.TCPFlags &^ (event.ECE | event.CWR) {
		case event.SYN:
			return syn
		case event.SYN | event.ACK:
			return synACK
		case event.RST, event.RST | event.ACK:
			return rst
		case event.ACK:
			if small {
				return ack
			}
		case 0:
			if small {
				return blank
			}
		}
		return tcp
	case event.ICMP, event.ICMPv6:
		return icmp
	case event.GRE:
		return gre
	case event.ESP, 51:
		return esp
	}
	return other
}

// ordinary reports whether packets of the class are mostly harmless, so that
// only their volume counts.
func (c class) ordinary() bool { return c == tcp || c == quic || c == esp }

// talk is the kind of conversation that packets may belong to.
type talk uint8

const (
	asking talk = iota // of services that are abused as amplifiers
	datagrams
	connections
	bulk // data by TCP or QUIC
	pings
	others
	talks
)

// talk returns the kind of conversation of which packets of the class would be
// the answers.
func (c class) talk() talk {
	switch {
	case c >= amplified:
		return asking
	case c == tcp, c == quic:
		return bulk
	case c == udp, c == fragments:
		return datagrams
	case c == syn, c == synACK, c == ack, c == rst, c == blank:
		return connections
	case c == icmp:
		return pings
	}
	return others
}

// speech reports whether f shows that its source takes part in a conversation
// with its destination. What a victim's stack says to strangers by itself does
// not: resets, SYN-ACKs, ICMP errors and echo replies.
func speech(f *event.Flow) bool {
	switch f.Proto {
	case event.TCP:
		return f.TCPFlags&event.RST == 0 && f.TCPFlags != event.SYN|event.ACK
	case event.ICMP:
		return f.DstPort>>8 == 8
	case event.ICMPv6:
		return f.DstPort>>8 == 128
	}
	return true
}
