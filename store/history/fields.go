package history

import (
	"unsafe"

	"noroshi/event"
)

// Field is one column of an event with its value.
type Field struct {
	Name  string
	Value Value
}

// Fields returns the columns of an event of the page that hold something, in
// their order.
func (p *Page) Fields(ref Ref) []Field {
	var at unsafe.Pointer
	switch ref.Kind {
	case Flows:
		at = unsafe.Pointer(&p.Events.Flows[ref.Index])
	case DNS:
		at = unsafe.Pointer(&p.Events.DNS[ref.Index])
	case Sessions:
		at = unsafe.Pointer(&p.Events.Sessions[ref.Index])
	case Logs:
		at = unsafe.Pointer(&p.Events.Logs[ref.Index])
	}
	var list []Field
	for _, c := range tables[ref.Kind].columns {
		// The offset is that of a field of this type in the event at at.
		f := unsafe.Add(at, c.offset)
		var v Value
		switch c.op {
		case op8:
			v = uint64(*(*uint8)(f))
		case op16:
			v = uint64(*(*uint16)(f))
		case op32:
			v = uint64(*(*uint32)(f))
		case op64:
			v = *(*uint64)(f)
		case opTime:
			v = *(*event.Time)(f)
		case opAddr:
			v = (*(*event.Addr)(f)).Std()
		case opText:
			v = p.Events.CloneText(*(*event.Text)(f))
		}
		switch x := v.(type) {
		case uint64:
			if x == 0 && names[c.name][0] == "" {
				continue
			}
		case string:
			if x == "" {
				continue
			}
		case event.Time:
			if x == 0 {
				continue
			}
		default:
			if Describe(c.name, v) == "-" {
				continue
			}
		}
		list = append(list, Field{c.name, v})
	}
	return list
}
