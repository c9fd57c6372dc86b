package runner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// maxToldPayload bounds what an errand may bring by way of the log, in bytes: a page of a log has 100 lines.
const maxToldPayload = 1 << 20

// serveHanded does what the machine's config handed over, tells it in the log, and returns the exit code of the turn. SIGUSR1 is a person's stop.
// The verbs are answered meanwhile, and nothing more is taken.
func (s *server) serveHanded(ctx context.Context, h Handed, w io.Writer) (int, error) {
	stops := make(chan os.Signal, 1)
	signal.Notify(stops, syscall.SIGUSR1)
	defer signal.Stop(stops)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	unlisten, err := s.listen()
	if err != nil {
		return 1, err
	}
	defer unlisten()
	tell, err := newLogWriter(w, h.Turn(), h.Key)
	if err != nil {
		return 1, err
	}
	taken := s.takeHanded(ctx, h)
	s.mu.Lock()
	s.leaving = true
	t := s.running
	s.mu.Unlock()
	for _, turn := range h.Acked {
		s.ack(ctx, AckRequest{Turn: turn, Fence: h.Fence})
	}
	if t != nil {
		go t.heed(ctx, stops)
	}
	told := taken
	told.Outcome = nil // it comes with the end
	if err := tell.tell(LogMessage{Taken: &told}); err != nil {
		s.log.Error("not told in the log", "turn", h.Turn(), "err", err)
	}
	n := 0
	if t != nil {
		n = s.tellEvents(t, tell)
	}
	return s.tellEnd(h.Turn(), n, tell), nil
}

// heed passes on that the turn is to stop, or that the machine goes.
func (t *turn) heed(ctx context.Context, stops <-chan os.Signal) {
	select {
	case <-stops:
		t.interrupt(FailStopped)
	case <-ctx.Done():
		t.interrupt(FailInterrupted)
	case <-t.done:
	}
}

// takeHanded puts and takes as the verbs would.
func (s *server) takeHanded(ctx context.Context, h Handed) TakeReply {
	if h.Take == nil {
		status, _, _ := s.statusOf(h.Ask)
		return TakeReply{Status: status}
	}
	if status, _, _ := s.statusOf(h.Turn()); status == StatusUnknown {
		for _, p := range h.Puts {
			reply := s.put(ctx, PutRequest{Turn: h.Turn(), Fence: h.Take.Fence, Name: p.Name, Data: p.Data})
			if reply.Status != StatusOK {
				return TakeReply{Status: reply.Status, Failure: reply.Failure, Reason: reply.Reason}
			}
		}
	}
	return s.accept(*h.Take)
}

// tellEvents tells what happens until the turn has ended, and returns how much that was.
func (s *server) tellEvents(t *turn, w *logWriter) int {
	n := 0
	for {
		events, over := t.await(context.Background(), n, nil)
		if over {
			return n
		}
		n = s.tellAll(events, n, w)
	}
}

func (s *server) tellAll(events []Event, n int, w *logWriter) int {
	for _, e := range events {
		if err := w.tell(LogMessage{Event: &e}); err != nil {
			s.log.Error("event not told in the log", "n", e.N, "err", err)
		}
		n = e.N
	}
	return n
}

// tellEnd tells of what happened after event n, and of the outcome, if there is one. It returns the exit code.
func (s *server) tellEnd(turn string, n int, w *logWriter) int {
	status, _, rec := s.statusOf(turn)
	s.tellAll(s.happened(turn, n), n, w)
	switch {
	case rec == nil && (status == StatusInterrupted || status == StatusUnknown):
		return 1
	case rec == nil:
		s.log.Error("the turn has no outcome", "turn", turn, "status", status)
		return 1
	}
	end, err := s.cfg.logEnd(rec)
	if err == nil {
		err = w.tell(LogMessage{End: &end})
	}
	if err != nil {
		s.log.Error("outcome not told in the log", "turn", turn, "err", err)
	}
	return rec.Outcome.ExitCode
}

func (c Config) logEnd(rec *record) (LogEnd, error) {
	end := LogEnd{Outcome: rec.Outcome, Text: rec.Answer}
	size := rec.Outcome.PayloadBytes
	if size > maxToldPayload {
		end.Outcome.ExitCode, end.Outcome.Failure, end.Outcome.PayloadBytes = 1, FailErrand, 0
		end.Outcome.Error = fmt.Sprintf("what was asked for is larger than %d MB, the most that the machine's log brings", maxToldPayload>>20)
		return end, nil
	}
	if size == 0 {
		return end, nil
	}
	var err error
	if end.Data, err = c.payload(rec, 0, int(size)); err != nil {
		return end, errors.Join(errors.New("read the payload"), err)
	}
	return end, nil
}
