package simdb

// lingers reports whether the statement pauses at the brink of an event, as a
// server does that forces a write: Options.Linger says. It pauses once.
func (c *call) lingers(kind EventKind, name string) bool {
	if c.lingered || c.s.srv.opt.Linger == nil {
		return false
	}
	c.lingered = true
	return c.s.srv.opt.Linger(Event{Kind: kind, Session: c.s.id, Name: name})
}
