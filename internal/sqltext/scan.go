package sqltext

// scanner reads one statement.
type scanner struct {
	dialect Dialect
	text    string
	pos     int
}

func (s *scanner) statement() Statement {
	return Statement{Text: s.text, Kind: Write}
}
