package history

// lookup returns the key that is looked up for an address column.
func (l Layout) lookup(column, part string) (key, bool) {
	dict := "'" + l.Database + ".names'"
	switch part {
	case "as":
		return key{expr: "dictGetOrDefault(" + dict + ", 'asn', " + column + ", toUInt32(0))", op: op32}, true
	case "as_name":
		return key{expr: "dictGetOrDefault(" + dict + ", 'name', " + column + ", '')", op: opText}, true
	case "country":
		return key{expr: "dictGetOrDefault(" + dict + ", 'country', " + column + ", '')", op: opText}, true
	}
	return key{}, false
}
