package main

import (
	"strings"
	"testing"
)

// answered is what wrk 4.1 prints.
const answered = `Running 1s test @ http://10.0.0.2:7008/
  1 threads and 16 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   321.45us  112.11us   3.01ms   84.12%
    Req/Sec    48.71k     2.11k   51.02k    70.00%
  48471 requests in 1.00s, 33.18MB read
Requests/sec:  48466.12
Transfer/sec:     33.18MB
`

func TestReadWrk(t *testing.T) {
	got, err := readWrk(answered)
	if want := (wrkReport{requests: 48471, rate: 48466.12}); err != nil || got != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	const totals = "Requests/sec:"
	for said, want := range map[string]string{
		"": "no request answered",
		strings.Replace(answered, totals, "  Socket errors: connect 0, read 3, write 0, timeout 0\n"+totals, 1): "read 3",
		strings.Replace(answered, totals, "  Non-2xx or 3xx responses: 7\n"+totals, 1):                          "responses: 7",
		strings.Replace(answered, "48466.12", "many", 1):                                                        "many",
		strings.Replace(answered, "48471", "0", 1):                                                              "no request answered",
		"unable to connect to 10.0.0.2:7008 Connection refused\n":                                               "no request answered",
	} {
		if _, err := readWrk(said); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", said, err, want)
		}
	}
}

func FuzzReadWrk(f *testing.F) {
	f.Add(answered)
	f.Add("Requests/sec: NaN\n1 requests in 1s\n")
	f.Fuzz(func(t *testing.T, said string) {
		if r, err := readWrk(said); err == nil && !(r.requests > 0 && r.rate > 0) {
			t.Errorf("%q: %+v", said, r)
		}
	})
}
