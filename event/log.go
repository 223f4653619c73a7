package event

// Log is one record of a machine's own log: Windows events, syslog.
type Log struct {
	Time     Time   // when it happened, by the machine's clock
	Seen     Time   // when it reached noroshi
	Addr     Addr   // the machine's address, where known
	Peer     Addr   // the other machine the record tells of (IpAddress of a log-on); zero = none
	Record   uint64 // the log's own number (EventRecordID); 0 = unknown
	Host     Text   // the machine's own name, lower case
	Channel  Text   // "Security", "Microsoft-Windows-Sysmon/Operational", syslog facility
	Provider Text   // who wrote it
	User     Text   // account, as DOMAIN\name where both are known
	Image    Text   // the program it is about
	Message  Text   // the record in one line, for people and for search
	Data     Text   // all named values as one JSON object
	EventID  uint32 // the provider's number for this kind of record; 0 = none
	PID      uint32 // process the record is about; 0 = unknown
	Level    uint8  // 1 critical, 2 error, 3 warning, 4 information, 5 verbose (winmeta.xml); 0 = always logged
	Marks    Marks
}
