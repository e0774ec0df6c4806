// Package policy holds the rules frames must pass: which sources a port may
// use (Guard, step 2 of the packet's path), what containers of a network may send
// one another (Admit, step 4), where they may open connections to (Egress, step
// 5.3), and how much of something a port may do (Rate, Bandwidth).
//
// It holds no clocks or goroutines: time is an argument. A Guard is read by any
// worker and never changed after it was made (what others are held to, its Bound,
// is replaced whole), an Admit likewise, but for its counters (Hits). The rules of an Egress do not
// change either; a mutex of its own guards what it learns. A Rate belongs to one
// worker, or to whoever holds the lock that guards it.
package policy
