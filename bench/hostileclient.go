package main

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"fairlead/node/api"
)

// A nuisance is a hostile client of the node's: what one of its connections does
// until its time is over or the node hangs up. It returns how many answers it got.
type nuisance func(conn net.Conn) (answers uint64)

// nuisances are all at work at once, again and again.
var nuisances = []nuisance{
	asks("GET /v1/switches"), asks("GET /v1/flows"), asks("GET /v1/openapi.json"), asks("GET /v1/containers/nobody"),
	asks("GET /v1/nat"), asks("GET /v1/rules"), asks("GET /v1/macs"), asks("GET /v1/check"), asks("GET /v1/trace"),
	cycle,
	says("\x16\x03\x01" + strings.Repeat("\xff", 1000) + "\r\n\r\n"),
	says(post("/v1/containers", "Content-Length: 9") + `{"name":[`),
	says(publish("1-65535:1-65535")),
	successor,
	endless, slow, slow, slow, slow,
	unread("/v1/openapi.json"), unread("/v1/switches"), unread("/v1/flows"), unread("/v1/nat"),
	unread("/v1/trace"), unread("/v1/containers/victim/logs?follow=1"),
}

// nuisanceCopies is how many connections each of them has: all together more than one
// process may have.
const nuisanceCopies = 12

// hammer is the client's part of an attack.
func hammer(j job) (o outcome, err error) {
	// As much of the machine as a flood takes, which is one thread.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	path, start := api.Socket(os.Getenv("FAIRLEAD_DIR")), time.Now()
	end := start.Add(j.For)
	var answers atomic.Uint64
	var all sync.WaitGroup
	for i := range nuisanceCopies * len(nuisances) {
		act := nuisances[i%len(nuisances)]
		all.Go(func() {
			for time.Now().Before(end) {
				conn, err := net.Dial("unix", path)
				if err != nil { // the line is full
					time.Sleep(time.Millisecond)
					continue
				}
				_ = conn.SetDeadline(end)
				answers.Add(act(conn))
				_ = conn.Close()
			}
		})
	}
	all.Wait()
	return outcome{Count: answers.Load(), Took: time.Since(start)}, nil
}

// asks asks the same again and again, and reads the answers.
func asks(what string) nuisance {
	return func(conn net.Conn) (answers uint64) {
		in := bufio.NewReader(conn)
		for {
			if _, err := io.WriteString(conn, what+" HTTP/1.1\r\nHost: node\r\n\r\n"); err != nil {
				return answers
			}
			if !gotAnswer(in) {
				return answers
			}
			answers++
		}
	}
}

// says sends one request and waits for what comes of it.
func says(request string) nuisance {
	return func(conn net.Conn) uint64 {
		if _, err := io.WriteString(conn, request); err == nil && gotAnswer(bufio.NewReader(conn)) {
			return 1
		}
		return 0
	}
}

func gotAnswer(in *bufio.Reader) bool {
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		return false
	}
	_, err = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	return err == nil
}

// endless sends a body without end.
func endless(conn net.Conn) uint64 {
	_, err := io.WriteString(conn, post("/v1/containers", "Transfer-Encoding: chunked"))
	for chunk := "10000\r\n" + strings.Repeat(" ", 1<<16) + "\r\n"; err == nil; {
		_, err = io.WriteString(conn, chunk)
	}
	return 0
}

// slow sends a byte of a request now and then.
func slow(conn net.Conn) uint64 {
	for _, b := range []byte("GET /v1/containers HTTP/1.1\r\nHost: " + strings.Repeat("x", 1<<10)) {
		if _, err := conn.Write([]byte{b}); err != nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	return 0
}

// unread asks for the same again and again, and reads nothing.
func unread(path string) nuisance {
	return func(conn net.Conn) uint64 {
		for {
			if _, err := io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: node\r\n\r\n"); err != nil {
				return 0
			}
		}
	}
}

// cycle publishes a thousand ports and takes them back, again and again.
func cycle(conn net.Conn) (answers uint64) {
	const ports = "20000-20999:20000-20999"
	back := "DELETE /v1/containers/victim/ports?port=" + ports + " HTTP/1.1\r\nHost: node\r\n\r\n"
	in := bufio.NewReader(conn)
	for {
		for _, request := range []string{publish(ports), back} {
			if _, err := io.WriteString(conn, request); err != nil || !gotAnswer(in) {
				return answers
			}
			answers++
		}
	}
}

// successor wants to take the node's place, and says nothing more until it is sent away.
func successor(conn net.Conn) uint64 {
	_, err := io.WriteString(conn, "POST /v1/replace HTTP/1.1\r\nHost: node\r\nConnection: Upgrade\r\nUpgrade: "+api.Protocol+"\r\n\r\n")
	if err != nil {
		return 0
	}
	if said, _ := io.Copy(io.Discard, conn); said == 0 {
		return 0
	}
	return 1
}

// publish asks for ports.
func publish(ports string) string {
	body := `{"publish":["` + ports + `"]}`
	return post("/v1/containers/victim/ports", "Content-Length: "+strconv.Itoa(len(body))) + body
}

// post is the head of a request, with a line about its body.
func post(path, length string) string {
	return "POST " + path + " HTTP/1.1\r\nHost: node\r\nContent-Type: application/json\r\n" + length + "\r\n\r\n"
}
