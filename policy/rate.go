package policy

// A Rate is a token bucket kept as one point in time (the generic cell rate
// algorithm, ITU-T I.371): the moment at which the bucket is full again. The
// zero Rate allows everything.
type Rate struct {
	interval int64 // nanoseconds one unit costs; 0 is no limit
	burst    int64 // nanoseconds of credit
	full     int64 // when the bucket is full again
}

// NewRate allows perSecond units a second and up to burst of them at once. A
// perSecond of zero or less is no limit.
func NewRate(perSecond, burst int) Rate {
	if perSecond <= 0 {
		return Rate{}
	}
	interval := max(1, int64(1e9)/int64(perSecond)) // the clock's tick at least
	return Rate{interval: interval, burst: interval * int64(max(burst, 1))}
}

// Allows reports whether one more unit may pass at time now (nanoseconds). It
// changes nothing, so that deciding stays free of effects.
func (r *Rate) Allows(now int64) bool {
	return r.interval == 0 || r.full-now <= r.burst-r.interval
}

// Take uses n units up. It may go into debt: what was allowed may turn out to
// cost more than one.
func (r *Rate) Take(now int64, n int) {
	if r.interval != 0 {
		r.full = max(r.full, now) + r.interval*int64(n)
	}
}
