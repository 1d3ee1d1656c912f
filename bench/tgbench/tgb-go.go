// tgb-go.go - Go's mallocgc: objects without pointers, each kept alive until the next one by a global variable.
//
// This is the allocation alone, with the collector's share of the time (GOGC=100) or without a collector and on ever fresh
// memory (GOGC=off).  One byte of each object is written.
package main

import (
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

var sink unsafe.Pointer

const perStep = 20000

func step[T any]() {
	for i := 0; i < perStep; i++ {
		p := unsafe.Pointer(new(T))
		*(*byte)(p) = byte(i)
		sink = p
	}
}

var steps = map[int]func(){
	1:  step[[1]byte],
	2:  step[[2]byte],
	4:  step[[4]byte],
	5:  step[[5]byte],
	7:  step[[7]byte],
	8:  step[[8]byte],
	12: step[[12]byte],
	15: step[[15]byte],
	16: step[[16]byte],
	24: step[[24]byte],
	32: step[[32]byte],
	64: step[[64]byte],
}

// Without a collector memory is never used again: so many objects at the most.
const freshMax = 5000000

// All threads share one CPU, so their processor time is what the clock would show if nothing else ran on it.
func cpuTime() time.Duration {
	var usage syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func repeat(run func(), seconds float64, most int) (int, time.Duration) {
	start, used := time.Now(), cpuTime()
	n := 0
	for n < most && (n == 0 || time.Since(start).Seconds() < seconds) {
		run()
		n += perStep
	}
	return n, cpuTime() - used
}

func main() {
	args := map[string]string{}
	for _, arg := range os.Args[1:] {
		name, value, _ := strings.Cut(arg, "=")
		args[name] = value
	}
	if _, isProbe := args["probe"]; isProbe {
		fmt.Println("ok 1")
		return
	}
	size, _ := strconv.Atoi(args["size"])
	seconds, _ := strconv.ParseFloat(args["seconds"], 64)
	run, known := steps[size]
	if !known {
		fmt.Fprintln(os.Stderr, "no such size")
		os.Exit(1)
	}
	most := 1 << 40
	if debug.SetGCPercent(-1) < 0 {
		most = freshMax
		repeat(run, seconds/4, perStep)
	} else {
		debug.SetGCPercent(100)
		repeat(run, seconds/4, most)
	}
	n, took := repeat(run, seconds, most)
	fmt.Printf("ns %.9g\n", float64(took.Nanoseconds())/float64(n))
}
