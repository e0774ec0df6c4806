// Package policy holds the rules frames must pass: which sources a port may
// use (Guard, step 2 of the packet's path) and how much of something it may do
// (Rate).
//
// It holds no clocks, locks or goroutines: time is an argument. A Guard is
// read by any worker and never changed after it was made. A Rate belongs to
// one worker, or to whoever holds the lock that guards it.
package policy
