// Package spell guesses which word was meant. Its functions may be called from
// any goroutine.
package spell

import "strings"

// maxWord bounds what is compared: words of ours are far shorter.
const maxWord = 64

// Closest returns the candidate that word is most likely a misspelling of, or
// nothing: what word begins, or one slip of the finger away, two when it is
// long. Any two letters are a slip away from others.
func Closest(word string, candidates []string) string {
	if len(word) > maxWord {
		return ""
	}
	best, bestDistance := "", 1+min(2, len(word)/3)
	for _, c := range candidates {
		d := distance(strings.ToLower(word), c)
		if len(word) > 1 && strings.HasPrefix(c, word) {
			d = 0
		}
		if d < bestDistance {
			best, bestDistance = c, d
		}
	}
	return best
}

// distance is the number of slips from a to b: a letter too many, one missing,
// a wrong one, or two neighbours swapped (optimal string alignment).
func distance(a, b string) int {
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row := make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			wrong := 1
			if a[i] == b[j] {
				wrong = 0
			}
			row[j+1] = min(last[j+1]+1, row[j]+1, last[j]+wrong)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
