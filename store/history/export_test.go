package history

// NameStatements are what LoadNames creates first.
func (l Layout) NameStatements() []string { return l.names() }
