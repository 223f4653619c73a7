package history

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"noroshi/event"
)

// words are the names of the numbers of a column. Names are compared without
// regard to case.
var words = map[string]map[string]uint64{
	"proto": protocols, "transport": protocols,
	// RFC 1035, 3596, 2782, 6891, 4034, 9460 and others; IANA "Resource Record (RR) TYPEs".
	"type": {
		"A": 1, "NS": 2, "CNAME": 5, "SOA": 6, "PTR": 12, "HINFO": 13, "MX": 15, "TXT": 16, "AAAA": 28, "SRV": 33, "NAPTR": 35,
		"DNAME": 39, "OPT": 41, "DS": 43, "RRSIG": 46, "NSEC": 47, "DNSKEY": 48, "NSEC3": 50, "TLSA": 52, "SVCB": 64, "HTTPS": 65,
		"IXFR": 251, "AXFR": 252, "ANY": 255, "CAA": 257,
	},
	"class": {"IN": 1, "CH": 3, "HS": 4, "NONE": 254, "ANY_CLASS": 255},
	// RFC 1035, 4.1.1; RFC 2136, 2.2.
	"rcode": {"NOERROR": 0, "FORMERR": 1, "SERVFAIL": 2, "NXDOMAIN": 3, "NOTIMP": 4, "REFUSED": 5, "YXDOMAIN": 6, "YXRRSET": 7, "NXRRSET": 8, "NOTAUTH": 9, "NOTZONE": 10},
	"role": {
		"auth-query": 1, "auth-response": 2, "resolver-query": 3, "resolver-response": 4, "client-query": 5, "client-response": 6,
		"forwarder-query": 7, "forwarder-response": 8, "stub-query": 9, "stub-response": 10, "tool-query": 11, "tool-response": 12,
		"update-query": 13, "update-response": 14,
	},
	"status": {
		"whole": uint64(event.SessionWhole), "start": uint64(event.SessionStart), "stop": uint64(event.SessionStop), "interim": uint64(event.SessionInterim),
	},
	"level": {"always": 0, "critical": 1, "error": 2, "warning": 3, "information": 4, "verbose": 5},
}

// protocols are the IANA names of those that noroshi meets.
var protocols = map[string]uint64{
	"icmp": event.ICMP, "igmp": 2, "ipip": event.IPIP, "tcp": event.TCP, "udp": event.UDP, "ipv6": event.IPv6, "gre": event.GRE,
	"esp": event.ESP, "ah": 51, "icmp6": event.ICMPv6, "ospf": 89, "sctp": 132,
}

// bitWords are the names of a column's bits.
var bitWords = map[string][]struct {
	word string
	bit  uint64
}{
	"tcp_flags": {
		{"FIN", event.FIN}, {"SYN", event.SYN}, {"RST", event.RST}, {"PSH", event.PSH},
		{"ACK", event.ACK}, {"URG", event.URG}, {"ECE", event.ECE}, {"CWR", event.CWR},
	},
	"marks": {
		{"packet", uint64(event.OnePacket)}, {"seqdst", uint64(event.SeqIsDst)}, {"quoteseqdst", uint64(event.QuoteSeqIsDst)},
		{"badoffset", uint64(event.BadOffset)}, {"noopt", uint64(event.NoOptions)}, {"frag", uint64(event.Fragment)},
		{"firstfrag", uint64(event.FirstFragment)}, {"tunnelled", uint64(event.Tunnelled)}, {"egress", uint64(event.Egress)},
		{"reverse", uint64(event.Reverse)}, {"clamped", uint64(event.Clamped)},
	},
}

// names is words turned round.
var names = func() map[string]map[uint64]string {
	m := map[string]map[uint64]string{}
	for column, list := range words {
		m[column] = map[uint64]string{}
		for w, n := range list {
			m[column][n] = w
		}
	}
	return m
}()

// parseNumber reads a number, or its name in this column; of bits several,
// joined by '+': SYN+ACK.
func parseNumber(column, v string) (uint64, error) {
	if n, err := strconv.ParseUint(v, 10, 64); err == nil {
		return n, nil
	}
	for w, n := range words[column] {
		if strings.EqualFold(w, v) {
			return n, nil
		}
	}
	if bits := bitWords[column]; bits != nil {
		var n uint64
		for part := range strings.SplitSeq(v, "+") {
			var bit uint64
			for _, b := range bits {
				if strings.EqualFold(b.word, part) {
					bit = b.bit
				}
			}
			if n |= bit; bit == 0 {
				return 0, fmt.Errorf("%q is none of its bits", part)
			}
		}
		return n, nil
	}
	if words[column] != nil {
		return 0, fmt.Errorf("%q is neither a number nor a name it has", v)
	}
	return 0, fmt.Errorf("%q is no number", v)
}

// Describe returns a value of a column in words: 6 in proto is "tcp". What is
// not known is "-". Texts come as they are; whoever shows them cleans them.
func Describe(column string, v Value) string {
	switch v := v.(type) {
	case uint64:
		if w, ok := names[column][v]; ok {
			return w
		}
		if bits := bitWords[column]; bits != nil && v != 0 {
			var list []string
			for _, b := range bits {
				if v&b.bit != 0 {
					list, v = append(list, b.word), v&^b.bit
				}
			}
			if v != 0 {
				list = append(list, strconv.FormatUint(v, 10))
			}
			return strings.Join(list, "+")
		}
		return strconv.FormatUint(v, 10)
	case string:
		if v == "" {
			return "-"
		}
		return v
	case netip.Addr:
		if !v.IsValid() {
			return "-"
		}
		return v.String()
	case netip.Prefix:
		return v.String()
	case event.Time:
		return v.String()
	}
	return fmt.Sprint(v)
}

// Column says what a column of a kind is.
type Column struct {
	Name string `json:"name"`
	Type string `json:"type"` // "number", "address", "text" or "time"
	What string `json:"what"`
}

// Columns returns the columns of k, in the order of the event.
func (k Kind) Columns() []Column {
	var list []Column
	for _, c := range tables[k].columns {
		typ := "number"
		switch c.op {
		case opAddr:
			typ = "address"
		case opText:
			typ = "text"
		case opTime:
			typ = "time"
		}
		list = append(list, Column{c.name, typ, meaning[k][c.name]})
	}
	return list
}

// meaning is what the columns are, for people; package event says it in full.
var meaning = [...]map[string]string{
	Flows: {
		"first": "time of the first packet", "last": "time of the last packet", "seen": "when the record reached noroshi",
		"src": "source", "dst": "destination", "exporter": "router that reported it",
		"bytes": "octets, sampling undone", "packets": "packets, sampling undone", "sampling": "one packet in so many was looked at; 0 unknown",
		"in_if": "interface in, ifIndex", "out_if": "interface out, ifIndex", "src_as": "AS of the source, by the router", "dst_as": "AS of the destination, by the router",
		"src_net": "own network of the source; 0 none", "dst_net": "own network of the destination; 0 none",
		"src_port": "source port", "dst_port": "destination port; ICMP: type*256+code",
		"proto": "protocol: tcp, udp, icmp, …", "tcp_flags": "all flags seen: SYN+ACK, …", "tos": "TOS or traffic class", "ttl": "TTL of a packet; 0 unknown",
		"window": "TCP window of a packet", "marks": "what was noticed: packet, seqdst, noopt, frag, tunnelled, …", "payload": "beginning of a packet's payload",
	},
	DNS: {
		"time": "when the message passed", "seen": "when it reached noroshi", "client": "who asked; after a day its /22 or /40", "server": "who answers",
		"name": "name asked for", "zone": "delegation or registrable domain", "reporter": "resolver or sensor that reports", "answer": "first address or name of the answer",
		"latency": "microseconds from question to answer; 0 unknown", "client_port": "client's port", "server_port": "server's port",
		"type": "QTYPE: A, AAAA, …", "class": "QCLASS", "id": "message ID", "flags": "second word of the header", "answers": "records in the answer", "size": "octets of the message",
		"rcode": "NOERROR, NXDOMAIN, …", "role": "between whom: client-query, resolver-response, …", "transport": "udp or tcp", "network": "own network of the client; 0 none",
	},
	Sessions: {
		"first": "beginning", "last": "end, or latest news", "seen": "when the record reached noroshi", "src": "who began it; for access the subscriber's address",
		"dst": "towards whom; for access the NAS", "bytes_in": "octets that dst received", "bytes_out": "octets that dst sent", "id": "the reporter's own ID",
		"reporter": "NAS or sensor", "service": "radius, ssh, telnet, smtp, …", "subscriber": "User-Name or contract", "user": "name that was tried or that logged on",
		"host": "name of the machine", "detail": "what a person wants to read", "fingerprint": "hash by which campaigns are told apart",
		"src_port": "source port", "dst_port": "destination port", "first_port": "first of the subscriber's ports behind CGN", "end_port": "last of them; both 0: all",
		"prefix": "length of the prefix that belongs to src; 0 unknown", "status": "whole, start, stop, interim", "marks": "what was noticed",
	},
	Logs: {
		"time": "when it happened, by the machine's clock", "seen": "when it reached noroshi", "addr": "the machine's address", "peer": "the other machine it tells of",
		"record": "the log's own number", "host": "name of the machine", "channel": "Security, Microsoft-Windows-Sysmon/Operational, a syslog facility, …",
		"provider": "who wrote it", "user": "account", "image": "program it is about", "message": "the record in one line", "data": "all named values, JSON",
		"event_id": "the provider's number for this kind of record", "pid": "process it is about", "level": "critical, error, warning, information, verbose", "marks": "what was noticed",
	},
}
