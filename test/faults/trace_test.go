package faults_test

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// syscall is a system call as strace saw it. Strings are decoded.
type syscall struct {
	name   string
	args   []string
	result int64
	failed bool
	died   bool // the process was killed in it
}

// step is one end of a system call: strace lets the thread go on only after it
// has written it down, so the order of steps is an order in which the kernel
// saw them, whichever thread they are of.
type step struct {
	*syscall
	exit bool
	at   time.Time
}

// traced are the calls that can change a file, a directory or what a file
// descriptor means, those that send a reply, and those that would change a file
// past this trace, which the model of the disk refuses.
const traced = "execve,openat,open,creat,close,dup,dup2,dup3,lseek,write,writev,pwrite64,pwritev,pwritev2,ftruncate,truncate,fallocate," +
	"fsync,fdatasync,sync_file_range,msync,rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,mkdirat,accept4,mmap," +
	"sendfile,copy_file_range,splice,io_uring_setup"

// maxString is more than the daemon writes in one call.
const maxString = 8 << 20

// straceCommand is the command that runs a program and writes its trace to a
// file. Where there is no strace it skips the test, except in CI, where nothing
// may be missing unseen.
func straceCommand(t *testing.T, trace string, more ...string) []string {
	t.Helper()
	path, err := exec.LookPath("strace")
	switch {
	case err != nil && os.Getenv("CI") != "":
		t.Fatal("strace is not installed (Debian: apt-get install strace)")
	case err != nil:
		t.Skip("strace is not installed (Debian: apt-get install strace)")
	}
	args := []string{path, "-f", "--seccomp-bpf", "-qq", "-e", "signal=none", "-o", trace}
	return append(args, more...)
}

// readTrace reads what strace -f -xx -ttt wrote.
func readTrace(path string) ([]step, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var steps []step
	open := map[string]*syscall{} // by thread: entered, not left
	in := bufio.NewReaderSize(f, 1<<20)
	for {
		line, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return steps, nil // a last line without end is of a call that did not return
		}
		if err != nil {
			return nil, err
		}
		if steps, err = appendLine(steps, open, bytes.TrimSuffix(line, []byte("\n"))); err != nil {
			return nil, fmt.Errorf("trace: %w in %.200q", err, line)
		}
	}
}

func appendLine(steps []step, open map[string]*syscall, line []byte) ([]step, error) {
	thread, rest, ok1 := strings.Cut(string(line), " ")
	rest = strings.TrimLeft(rest, " ")
	stamp, text, ok2 := strings.Cut(rest, " ")
	seconds, micros, ok3 := strings.Cut(stamp, ".")
	sec, err1 := strconv.ParseInt(seconds, 10, 64)
	us, err2 := strconv.ParseInt(micros, 10, 64)
	if err := errors.Join(err1, err2); !ok1 || !ok2 || !ok3 || err != nil {
		return nil, fmt.Errorf("no thread and time: %w", err)
	}
	at := time.Unix(sec, us*1000)
	switch {
	case strings.HasPrefix(text, "+++") || strings.HasPrefix(text, "---"):
		return steps, nil // a thread ended
	case strings.HasPrefix(text, "<... "):
		_, tail, ok := strings.Cut(text, " resumed>")
		call := open[thread]
		delete(open, thread)
		if !ok || call == nil {
			return nil, errors.New("a call returns that was not made")
		}
		args, err := call.leave(tail)
		if err != nil {
			return nil, err
		}
		call.args = append(call.args, args...)
		if call.died {
			return steps, nil
		}
		return append(steps, step{call, true, at}), nil
	}
	name, tail, ok := strings.Cut(text, "(")
	if !ok {
		return nil, errors.New("not a call")
	}
	call := &syscall{name: name}
	before, ok := strings.CutSuffix(tail, " <unfinished ...>")
	if !ok {
		before, ok = strings.CutSuffix(tail, " <detached ...>") // it was killed
	}
	if ok {
		if call.args, err1 = splitArgs(before); err1 != nil {
			return nil, err1
		}
		open[thread] = call
		return append(steps, step{call, false, at}), nil
	}
	if call.args, err1 = call.leave(tail); err1 != nil {
		return nil, err1
	}
	if call.died {
		return append(steps, step{call, false, at}), nil
	}
	return append(steps, step{call, false, at}, step{call, true, at}), nil
}

// leave reads "rest of the arguments) = result".
func (c *syscall) leave(tail string) ([]string, error) {
	end := strings.LastIndex(tail, ") ")
	if end < 0 {
		return nil, errors.New("no result")
	}
	result := strings.TrimLeft(tail[end+1:], " ")
	result, ok := strings.CutPrefix(result, "= ")
	if !ok {
		return nil, errors.New("no result")
	}
	number, note, _ := strings.Cut(result, " ")
	c.failed, c.died = strings.HasPrefix(number, "-"), number == "?"
	if n, err := strconv.ParseInt(number, 0, 64); err == nil {
		c.result = n
	} else if !c.died && !strings.HasPrefix(number, "0x") {
		return nil, fmt.Errorf("result %q %q", number, note)
	}
	return splitArgs(tail[:end])
}

// splitArgs splits at commas outside strings and brackets, and decodes strings.
func splitArgs(s string) (args []string, err error) {
	depth, start := 0, 0
	take := func(end int) {
		arg := strings.TrimSpace(s[start:end])
		if arg == "" {
			return
		}
		if text, ok := strings.CutPrefix(arg, `"`); ok {
			text, ok = strings.CutSuffix(text, `"`)
			if !ok {
				err = errors.New("a string was cut short")
				return
			}
			b, e := hex.DecodeString(strings.ReplaceAll(text, `\x`, ""))
			if e != nil {
				err = e
			}
			arg = string(b)
		}
		args = append(args, arg)
	}
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"':
			end := strings.IndexByte(s[i+1:], '"') // everything inside is hexadecimal
			if end < 0 {
				return nil, errors.New("a string does not end")
			}
			i += end + 1
		case '{', '[', '(':
			depth++
		case '}', ']', ')':
			depth--
		case ',':
			if depth == 0 {
				take(i)
				start = i + 1
			}
		}
	}
	take(len(s))
	return args, err
}

// number returns the i-th argument as a number.
func (c *syscall) number(i int) int64 {
	n, err := strconv.ParseInt(c.args[i], 0, 64)
	if err != nil {
		return -1
	}
	return n
}
