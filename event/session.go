package event

// Session is one conversation with a beginning and an end that somebody kept a
// book about: a subscriber's access session (RADIUS accounting), an attacker's
// visit to a honeypot, a log-on between two machines, a message passing a mail
// server.
type Session struct {
	First, Last Time // First <= Last; Last is the latest news of one that goes on
	Seen        Time // when the record reached noroshi
	// Src began it, towards Dst. For an access session Src is the subscriber's
	// framed address or the first of a delegated prefix, and Dst the NAS.
	Src, Dst           Addr
	BytesIn, BytesOut  uint64 // as seen from Dst: received, sent
	ID                 Text   // the reporter's own: Acct-Session-Id, honeypot session
	Reporter           Text   // NAS or sensor
	Service            Text   // "radius", "ssh", "telnet", "smtp", ...
	Subscriber         Text   // User-Name or contract; what identify resolves
	User               Text   // the name that was tried or that logged on
	Host               Text   // the machine's own name, where told
	Detail             Text   // what a person wants to read: commands, subject, cause
	Fingerprint        Text   // hash by which campaigns are told apart; "" = none
	SrcPort, DstPort   uint16
	FirstPort, EndPort uint16 // the ports of Src that are the subscriber's (CGN, RFC 8045): both 0 = all
	Prefix             uint8  // length of the prefix of Src that belongs to it: 32 or 128 for an address; 0 = unknown
	Status             SessionStatus
	Marks              Marks
}

// SessionStatus says which news of a session a record is, with RADIUS's numbers
// (Acct-Status-Type, RFC 2866, 5.1). 0 = a whole session in one record.
type SessionStatus uint8

// The statuses.
const (
	SessionWhole   SessionStatus = 0
	SessionStart   SessionStatus = 1
	SessionStop    SessionStatus = 2
	SessionInterim SessionStatus = 3
)
