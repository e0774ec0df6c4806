package sockets

// An acknowledgement without data costs the container's kernel as much as the
// answer that follows it, and whoever waits for the answer waits for both. So
// where answers follow requests at once they take it along (RFC 1122 4.2.3.2). As
// Linux does (inet_csk_in_pingpong_mode), a connection has to have shown that
// before, and one that does so no more is acknowledged at once again: there is
// perhaps a program that waits for it before it sends the rest (RFC 896).
const (
	// ackDelay is how long an answer may take that is to take it along.
	ackDelay = int64(aMoment)
	// pingpongs is how many answers in a row have to have followed so soon.
	pingpongs = 3
)

// owed notes that a segment with data is to be acknowledged: at once, or with the
// answer.
func (c *conn) owed(payload int) {
	c.bits |= asked
	if payload < int(c.mss) && c.pingpong >= pingpongs && c.acks == 0 && !c.bits.has(owes) {
		c.bits |= owes
		c.s.tcp.lookSoon(c)
		return
	}
	c.acks = max(c.acks, 1)
}

// answeredAsked counts an answer that is just being sent.
func (c *conn) answeredAsked(now int64) {
	if !c.bits.has(asked) {
		return
	}
	c.bits &^= asked
	if now-c.heard > ackDelay {
		c.pingpong = 0
	} else if c.pingpong < pingpongs {
		c.pingpong++
	}
}

// alone has the acknowledgement sent that no answer has taken along.
func (c *conn) alone() {
	c.bits &^= owes
	c.acks, c.pingpong = max(c.acks, 1), 0
}
