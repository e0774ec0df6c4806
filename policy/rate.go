package policy

// A Rate is a token bucket kept as one point in time (the generic cell rate
// algorithm, ITU-T I.371): the moment at which the bucket is full again. It is
// exact: what a nanosecond cannot say is carried on. The zero Rate allows
// everything.
type Rate struct {
	perSecond int64 // units; 0 is no limit
	credit    int64 // nanoseconds to fill what must be free for one unit to pass: the bucket but for that
	full      int64 // when the bucket is full again, in nanoseconds
	rest      int64 // and this much of another one, in parts of perSecond
}

const second = int64(1e9)

// NewRate allows perSecond units a second and up to burst of them at once. A
// perSecond of zero or less is no limit.
func NewRate(perSecond, burst int) Rate {
	if perSecond <= 0 {
		return Rate{}
	}
	return Rate{perSecond: int64(perSecond), credit: int64(max(burst, 1)-1) * second / int64(perSecond)}
}

// Allows reports whether one more unit may pass at time now (nanoseconds). It
// changes nothing, so that deciding stays free of effects.
func (r *Rate) Allows(now int64) bool { return r.perSecond == 0 || r.full+r.odd() <= now+r.credit }

// Until is when Allows will be true, now or later.
func (r *Rate) Until(now int64) int64 {
	if r.perSecond == 0 {
		return now
	}
	return max(now, r.full+r.odd()-r.credit)
}

// odd rounds what is left of a nanosecond up.
func (r *Rate) odd() int64 { return min(r.rest, 1) }

// Take uses n units up. It may go into debt: what was allowed may turn out to
// cost more than one.
func (r *Rate) Take(now int64, n int) {
	if r.perSecond == 0 {
		return
	}
	if r.full < now {
		r.full, r.rest = now, 0
	}
	cost := int64(n)*second + r.rest
	r.full += cost / r.perSecond
	r.rest = cost % r.perSecond
}
