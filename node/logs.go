package node

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// getLogs sends what a detached container wrote, and with ?follow=1 what it
// goes on to write.
func (n *Node) getLogs(w http.ResponseWriter, r *http.Request, c *container) (any, error) {
	if c.files.log == "" {
		return nil, fail(http.StatusConflict, "container %s runs in the foreground: its output went where it was started; `fairlead run -d` keeps it", c.name())
	}
	tail := -1
	if s := r.URL.Query().Get("tail"); s != "" {
		var err error
		if tail, err = strconv.Atoi(s); err != nil || tail < 0 {
			return nil, fail(http.StatusBadRequest, "tail=%q is not a number of lines", s)
		}
	}
	n.holdFiles(c) // the end of what is followed is read after the container's
	defer n.releaseFiles(c)
	l := logText{path: c.files.log}
	defer l.close()
	var err error
	took := compute(func() {
		if err = l.look(); err == nil {
			err = l.seekTail(tail)
		}
	})
	n.charge(r, took-paceLeast)
	if err != nil {
		return nil, fmt.Errorf("log of container %s: %w", c.name(), err)
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	for goesOn := r.URL.Query().Get("follow") == "1"; ; {
		if err := l.copy(&pieces{n, w, r}); err != nil || !goesOn {
			return nil, nil //nolint:nilerr // the client has left, nobody hears the error
		}
		giveTime(w)
		_ = http.NewResponseController(w).Flush()
		select {
		case <-r.Context().Done():
			return nil, nil
		case <-c.done:
			goesOn = false
		case <-time.After(100 * time.Millisecond):
		}
		_ = l.look() // without a log nothing is written
	}
}

// Pieces are an answer as it is written, piece by piece: each costs what a short request
// does, and the client has answerWithin to read it.
type pieces struct {
	n *Node
	w http.ResponseWriter
	r *http.Request
}

func (p *pieces) Write(b []byte) (int, error) {
	if !p.n.pace.begin(p.r.Context(), clientNumber(p.r)) {
		return 0, p.r.Context().Err()
	}
	giveTime(p.w)
	return p.w.Write(b)
}

// A logText is a log as one text: it is written to a file that is renamed to
// .1 when it is full, over the .1 before it, and goes on in another.
type logText struct {
	path  string
	files []*os.File // not yet read to the end, oldest first; the last is written to
	piece []byte     // what is copied at once
}

// logPiece is how much of a log is written at once, which takes less than paceLeast.
const logPiece = 128 << 10

// look opens the files that follow the ones we have.
func (l *logText) look() error {
	var last os.FileInfo
	if len(l.files) > 0 {
		var err error
		if last, err = l.files[len(l.files)-1].Stat(); err != nil {
			return err
		}
		if now, err := os.Stat(l.path); err == nil && os.SameFile(now, last) {
			return nil
		}
	}
	there, err := openLog(l.path)
	if err != nil {
		return err
	}
	for i, f := range there {
		if info, err := f.Stat(); last != nil && err == nil && os.SameFile(info, last) {
			closeFiles(there[:i+1])
			there = there[i+1:]
			break
		}
	}
	l.files = append(l.files, there...)
	return nil
}

// copy writes all there is to w.
func (l *logText) copy(w io.Writer) error {
	if l.piece == nil {
		l.piece = make([]byte, logPiece)
	}
	for {
		// Only io.Reader: a file writes itself in pieces of its own.
		if _, err := io.CopyBuffer(w, struct{ io.Reader }{l.files[0]}, l.piece); err != nil || len(l.files) == 1 {
			return err
		}
		_ = l.files[0].Close()
		l.files = l.files[1:]
	}
}

func (l *logText) close() { closeFiles(l.files) }

// openLog opens the files of a log, oldest first.
func openLog(path string) ([]*os.File, error) {
	for attempt := 0; ; attempt++ {
		older, err1 := openRegular(path + ".1")
		newer, err := openRegular(path)
		// A rotation between the two would hide a file; who rotates all the time
		// must not keep us.
		if now, err2 := os.Stat(path + ".1"); attempt < 10 && !sameAs(older, now, err2) && (err1 == nil || errors.Is(err1, os.ErrNotExist)) {
			closeFiles([]*os.File{older, newer})
			continue
		}
		var files []*os.File
		for _, f := range []*os.File{older, newer} {
			if f != nil {
				files, err = append(files, f), nil
			}
		}
		return files, err
	}
}

// sameAs reports whether f is what os.Stat answered, be it that there is none.
func sameAs(f *os.File, info os.FileInfo, err error) bool {
	if f == nil || err != nil {
		return f == nil && err != nil
	}
	have, err := f.Stat()
	return err == nil && os.SameFile(have, info)
}

// openRegular opens a file that must be one: a container may put a FIFO in the
// place of its log, and to open that would wait for ever.
func openRegular(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, errors.Join(fmt.Errorf("%s is not a file any more", path), err)
	}
	return f, nil
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		_ = f.Close() // of nil it does nothing
	}
}

// seekTail moves to the beginning of the last lines; -1 is all.
func (l *logText) seekTail(lines int) error {
	if lines < 0 {
		return nil
	}
	text := false // behind where we look
	for i := len(l.files) - 1; i >= 0; i-- {
		var size int64
		var err error
		if lines, size, err = seekTail(l.files[i], lines, text); err != nil {
			return err
		}
		if lines <= 0 {
			closeFiles(l.files[:i])
			l.files = l.files[i:]
			return nil
		}
		text = text || size > 0
	}
	return nil
}

// seekTail moves to the beginning of the last lines of a file, behind which more
// text follows or not, and returns how many are left to look for before it and
// the file's size. It reads backwards in pieces, so it is bounded by the lines
// asked for and the size.
func seekTail(f *os.File, lines int, more bool) (left int, size int64, err error) {
	size, err = f.Seek(0, io.SeekEnd)
	if err != nil || lines == 0 {
		return lines, size, err
	}
	piece := make([]byte, 4096)
	for at := size; at > 0; {
		length := min(at, int64(len(piece)))
		at -= length
		if _, err := f.ReadAt(piece[:length], at); err != nil {
			return lines, size, err
		}
		for i := length - 1; i >= 0; i-- {
			if piece[i] != '\n' || !more && at+i == size-1 {
				continue
			}
			if lines--; lines == 0 {
				_, err := f.Seek(at+i+1, io.SeekStart)
				return 0, size, err
			}
		}
	}
	_, err = f.Seek(0, io.SeekStart)
	return lines, size, err
}
