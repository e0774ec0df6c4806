package lab

import (
	"os"
	"strconv"
	"time"
)

// Seed is where a random test takes its decisions from. It is the same each time:
// a test that has passed says nothing else the next time, unless somebody has
// changed something. FAIRLEAD_SEED=N has it try others, and 0 one from the clock.
func Seed(t T) uint64 {
	t.Helper()
	seed := uint64(1)
	if s := os.Getenv("FAIRLEAD_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		must(t, err, "read FAIRLEAD_SEED")
		if seed = n; n == 0 {
			seed = uint64(time.Now().UnixNano())
		}
	}
	t.Logf("repeat it with FAIRLEAD_SEED=%d", seed)
	return seed
}
