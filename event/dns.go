package event

// DNS is one DNS message seen at a resolver or authority (dnstap), or on the
// wire.
type DNS struct {
	// Time is when the message passed, by the reporter's clock, corrected where
	// that is known to be wrong; Seen is when it reached noroshi.
	Time, Seen Time
	// Client asked and Server answers, whichever of the two sent this message.
	Client, Server         Addr
	Name                   Text   // QNAME in lower case without the final dot; "" is the root
	Zone                   Text   // the delegation in use (dnstap query_zone) or the registrable domain
	Reporter               Text   // who reports it: dnstap identity, or the sensor's name
	Answer                 Text   // the first address or name of the answer section, in text form
	Latency                uint32 // microseconds between query and response; 0 = unknown
	ClientPort, ServerPort uint16
	Type, Class            uint16 // QTYPE, QCLASS (RFC 1035, 3.2)
	ID                     uint16
	Flags                  uint16 // the header's second word: QR, Opcode, AA, TC, RD, RA, AD, CD, RCODE (RFC 1035, 4.1.1)
	Answers                uint16 // ANCOUNT
	Size                   uint16 // octets of the message
	Rcode                  uint8  // RCODE; meaningful only in a response
	Role                   DNSRole
	Transport              uint8  // UDP or TCP as IANA protocol number; 0 = unknown
	Network                uint32 // index of the client's own network; 0 = not the provider's
}

// DNSRole is between whom a message passed, with dnstap's numbers (Message.Type
// of dnstap.proto). 0 = unknown.
type DNSRole uint8

// The roles. Odd ones are queries, even ones responses.
const (
	AuthQuery DNSRole = iota + 1
	AuthResponse
	ResolverQuery
	ResolverResponse
	ClientQuery
	ClientResponse
	ForwarderQuery
	ForwarderResponse
	StubQuery
	StubResponse
	ToolQuery
	ToolResponse
	UpdateQuery
	UpdateResponse
)

// Response reports whether the message is a response.
func (r DNSRole) Response() bool { return r != 0 && r&1 == 0 }
