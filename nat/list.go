package nat

// Records are members of up to three lists, by links in the record: nothing is
// allocated to remember a flow in one.
const (
	linkWheel   = iota // a slot of the wheel; of an ended flow the retired, of a free record the free
	linkHolder         // the flows of a container
	linkMapping        // the flows of a mapping
	numLinks
)

type link struct{ next, prev uint32 }

// A list of records, oldest first. 0 is the end at either side.
type list struct{ head, tail uint32 }

// append puts a record at the end of a list.
func (t *Table) append(l *list, which int, ref uint32) {
	t.body(ref).links[which] = link{prev: l.tail}
	if l.tail != 0 {
		t.body(l.tail).links[which].next = ref
	} else {
		l.head = ref
	}
	l.tail = ref
}

// unlink takes a record out of the list it is in.
func (t *Table) unlink(l *list, which int, ref uint32) {
	at := &t.body(ref).links[which]
	if at.prev != 0 {
		t.body(at.prev).links[which].next = at.next
	} else {
		l.head = at.next
	}
	if at.next != 0 {
		t.body(at.next).links[which].prev = at.prev
	} else {
		l.tail = at.prev
	}
	*at = link{}
}
