package nat

// A wheel has the times at which flows are looked at: a slot for each quarter of
// a second of the next half minute. It is lazy: a packet only writes the time
// into its half, and when a flow's slot comes up it is seen whether its time is
// up, or else when to look again. So a flow is looked at every half minute at
// the latest, which also notices flows that were opened or closed since.
type wheel struct {
	slots [wheelSlots]list
	tick  int64 // the slot that is being emptied
}

const (
	wheelSlots = 128
	wheelTick  = 1 << 28 // nanoseconds

	// youth is when a new flow is looked at first: by then most are answered,
	// or never will be.
	youth = 4e9
)

// arm has a flow looked at soon after a time.
func (t *Table) arm(ref uint32, at int64) {
	w := &t.wheel
	tick := min(max(at/wheelTick+1, w.tick+1), w.tick+wheelSlots-1)
	slot := tick % wheelSlots
	t.append(&w.slots[slot], linkWheel, ref)
	t.body(ref).slot = uint8(slot)
}

func (t *Table) disarm(ref uint32) { t.unlink(&t.wheel.slots[t.body(ref).slot], linkWheel, ref) }

// Expire ends flows whose time is up. It looks at most at max flows, and reports
// whether more are due.
func (t *Table) Expire(now int64, max int) (more bool) {
	t.setClock(now)
	w := &t.wheel
	for target := now / wheelTick; ; max-- {
		slot := &w.slots[w.tick%wheelSlots]
		for slot.head == 0 {
			if w.tick >= target {
				return false
			}
			w.tick++
			slot = &w.slots[w.tick%wheelSlots]
		}
		if max <= 0 {
			return true
		}
		t.visit(slot.head, now)
	}
}

// visit looks at one flow whose slot came up.
func (t *Table) visit(ref uint32, now int64) {
	b := t.body(ref)
	deadline := t.deadline(b, t.forwardPort(ref))
	if now > deadline {
		t.end(ref)
		t.stats.Expired++
		return
	}
	t.classify(ref)
	t.disarm(ref)
	t.arm(ref, deadline)
}

// Due is when Expire has something to do next; false while there are no flows.
func (t *Table) Due() (at int64, ok bool) {
	for tick := t.wheel.tick; tick < t.wheel.tick+wheelSlots; tick++ {
		if t.wheel.slots[tick%wheelSlots].head != 0 {
			return tick * wheelTick, true
		}
	}
	return 0, false
}

// setClock takes in what time it is. It never goes back.
func (t *Table) setClock(now int64) {
	t.now = max(t.now, now)
	if behind := t.now/wheelTick - wheelSlots; t.wheel.tick < behind {
		t.wheel.tick = behind // every slot is due: one turn of the wheel does
	}
	if t.live.Load() == 0 {
		t.wheel.tick = t.now / wheelTick
	}
}
