package runner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"time"
)

// errFenced says that a request carries an older fence than one already seen.
var errFenced = errors.New("an older fence")

// admit notes the contact and the fence of a verb that changes something. A stale owner is nobody who watches.
// Another error than errFenced says that the fence could not be kept. s.changing must be held.
func (s *server) admit(fence int64) error {
	s.mu.Lock()
	newest := s.fence
	s.fence = max(s.fence, fence)
	s.mu.Unlock()
	if fenced && fence < newest {
		return errFenced
	}
	s.contact()
	if fence == newest {
		return nil
	}
	if err := s.cfg.save(s.cfg.fenceFile(), strconv.AppendInt(nil, fence, 10)); err != nil {
		s.log.Error("fence not kept", "err", err)
		return fmt.Errorf("keep the fence: %w", err)
	}
	return nil
}

func (s *server) take(ctx context.Context, r TakeRequest) TakeReply {
	reply := s.accept(r)
	if r.WaitMS > 0 && (reply.Status == StatusAccepted || reply.Status == StatusRunning) {
		reply.News = new(s.events(ctx, EventsRequest{Turn: r.Turn.ID, WaitMS: r.WaitMS}))
	}
	return reply
}

// accept begins the turn, if it may.
func (s *server) accept(r TakeRequest) TakeReply {
	s.changing.Lock()
	defer s.changing.Unlock()
	if err := s.admit(r.Fence); err != nil {
		return refuseTake(err)
	}
	switch status, _, rec := s.statusOf(r.Turn.ID); {
	case status == StatusUnknown || !fenced:
	case status == StatusDone:
		return TakeReply{Status: status, Outcome: &rec.Outcome}
	default:
		return TakeReply{Status: status}
	}
	if status := s.occupied(); status != "" {
		return TakeReply{Status: status}
	}
	puts := s.cfg.putDir(r.Turn.ID, r.Fence)
	prompt, err := r.Turn.check(puts)
	if err != nil {
		return refuseTake(err)
	}
	for _, need := range r.Needs {
		if need != NeedBudget && need != NeedHosts {
			return refuseTake(refused{fmt.Errorf("this machine's image is too old for a setting that the turn must not run without (%s)", need), FailSettings})
		}
	}
	if err := r.Secrets.check(); err != nil {
		return refuseTake(refused{err, FailSettings})
	}
	j, err := newJournal(s.cfg, r.Turn.ID)
	if err != nil {
		return refuseTake(err)
	}
	s.begin(newTurn(s.cfg, r.Turn, prompt, r.Secrets, j, puts))
	return TakeReply{Status: StatusAccepted}
}

func refuseTake(err error) TakeReply {
	status, failure, reason := refusal(err)
	return TakeReply{Status: status, Failure: failure, Reason: reason}
}

// occupied says why no turn can be taken now; empty: one can. s.changing must be held until it is.
func (s *server) occupied() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.leaving:
		return StatusExiting
	case s.running != nil:
		return StatusBusy
	}
	return ""
}

// begin starts the turn. s.changing must be held.
func (s *server) begin(t *turn) {
	s.mu.Lock()
	s.running, s.settled = t, time.Time{}
	s.secrets, s.origins = t.secrets, t.secrets.mayHave(gitOrigins(t.Repos))
	s.lingers = time.Duration(t.Settings.LingerSeconds) * time.Second
	s.mu.Unlock()
	s.stirUp()
	go func() { s.ended(t, t.run()) }()
}

var sessionID = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)

// check refuses a turn that could not work, and returns its prompt. puts is where its files were put.
func (t Turn) check(puts string) (string, error) {
	prompt := t.Prompt
	if t.PromptPut {
		raw, err := os.ReadFile(putPath(puts, "prompt"))
		switch {
		case err != nil:
			return "", errors.New("the prompt was not put")
		case int64(len(raw)) < t.PromptBytes:
			return "", errors.New("the prompt did not arrive whole")
		case t.PromptBytes > 0: // an earlier try may have put a longer one
			raw = raw[:t.PromptBytes]
		}
		prompt = string(raw)
	}
	switch {
	case t.ID == "":
		return "", errors.New("a turn needs an id")
	case !sessionID.MatchString(t.SessionID):
		return "", fmt.Errorf("%q is no session id: want a UUID", t.SessionID)
	case t.Errand != nil:
		if err := t.Errand.check(t.Repos); err != nil {
			return "", refused{err, FailErrand}
		}
	case isBlank(prompt):
		return "", refuse(FailNoPrompt, "the prompt is blank")
	}
	for _, f := range t.Files {
		if !isPutName("file/" + f.Name) {
			return "", refuse(FailFile, "%q is no name for an attachment", f.Name)
		}
		if err := f.whole(putPath(puts, "file/"+f.Name)); err != nil {
			return "", refused{err, FailFile}
		}
	}
	if err := CheckRepos(t.Repos); err != nil {
		return "", refused{err, FailRepos}
	}
	if err := t.Settings.check(); err != nil {
		return "", refused{err, FailSettings}
	}
	return prompt, nil
}

// eventsBudget keeps a reply with events below MaxBody.
const eventsBudget = MaxBody - 4<<10

// eventsBatch is how long a reply waits for more once there is news: each costs an exec, of which Fly allows one a
// second, and no one sees more.
const eventsBatch = 800 * time.Millisecond

func (s *server) events(ctx context.Context, r EventsRequest) EventsReply {
	s.contact()
	if _, t, _ := s.statusOf(r.Turn); t != nil {
		wait := time.NewTimer(time.Duration(min(max(r.WaitMS, 0), 15000)) * time.Millisecond)
		defer wait.Stop()
		if events, over := t.await(ctx, r.After, wait.C); !over {
			return EventsReply{Status: StatusRunning, Events: fitting(events)}
		}
	}
	status, t, rec := s.statusOf(r.Turn)
	if t != nil {
		return EventsReply{Status: StatusRunning}
	}
	rest := s.happened(r.Turn, r.After)
	reply := EventsReply{Status: status, Events: fitting(rest)}
	if rec == nil || len(reply.Events) < len(rest) {
		return reply
	}
	whole := reply
	whole.Outcome, whole.Text = &rec.Outcome, rec.Answer
	if len(rec.Answer) > eventsBudget || jsonSize(whole) > eventsBudget {
		return reply
	}
	return whole
}

// await returns events after n; over: the turn has ended.
func (t *turn) await(ctx context.Context, n int, timeout <-chan time.Time) (events []Event, over bool) {
	var enough <-chan time.Time
	for {
		events, changed := t.journal.after(n)
		if len(events) > 0 && enough == nil {
			enough = time.After(eventsBatch)
		}
		select {
		case <-changed:
		case <-t.done:
			return nil, true
		case <-enough:
			return events, false
		case <-ctx.Done():
			return events, false
		case <-timeout:
			return events, false
		}
	}
}

func jsonSize(v any) int {
	raw, _ := json.Marshal(v)
	return len(raw)
}

// fitting returns as many events as go into one reply.
func fitting(events []Event) []Event {
	size := 0
	for i, e := range events {
		if size += jsonSize(e) + 1; size > eventsBudget && i > 0 {
			return events[:i]
		}
	}
	return events
}

func (s *server) result(_ context.Context, r ResultRequest) ResultReply {
	s.contact()
	status, _, rec := s.statusOf(r.Turn)
	if rec == nil {
		return ResultReply{Status: status}
	}
	reply := ResultReply{Status: status, Outcome: &rec.Outcome}
	if r.Payload {
		var err error
		if reply.Data, err = s.cfg.payload(rec, r.Offset, (MaxBody-jsonSize(reply)-100)/4*3); err != nil {
			s.log.Error("payload cannot be read", "turn", r.Turn, "err", err)
		}
		return reply
	}
	from := min(max(r.Offset, 0), int64(len(rec.Answer)))
	reply.Text = piece(rec.Answer[from:], MaxBody-jsonSize(reply)-100)
	return reply
}

// piece returns the beginning of text that is at most size bytes once it is JSON, cut at a rune's end.
func piece(text string, size int) string {
	n := min(len(text), size)
	for {
		for n > 0 && n < len(text) && text[n]&0xC0 == 0x80 {
			n--
		}
		if jsonSize(text[:n]) <= size {
			return text[:n]
		}
		n = n * 3 / 4
	}
}

func (s *server) ack(_ context.Context, r AckRequest) AckReply {
	s.changing.Lock()
	defer s.changing.Unlock()
	if errors.Is(s.admit(r.Fence), errFenced) {
		return AckReply{Status: StatusFenced}
	}
	status, _, rec := s.statusOf(r.Turn)
	if rec != nil {
		if err := s.cfg.save(s.cfg.turnFile(r.Turn, ".acked"), nil); err != nil {
			s.log.Error("acknowledgement not kept", "turn", r.Turn, "err", err)
		}
		s.forget(r.Turn)
		s.cfg.prune()
	}
	_ = os.RemoveAll(s.cfg.turnFile(r.Turn, ".put"))
	_ = os.Remove(s.cfg.turnFile(r.Turn, ".payload"))
	s.goSoon()
	if status != StatusDone && status != StatusInterrupted {
		return AckReply{Status: StatusUnknown}
	}
	return AckReply{Status: StatusOK}
}

// goSoon begins to linger: whoever has the newest fence is done with the machine. It does not while a turn runs, nor
// for a late acknowledgement of an earlier turn while the outcome of the last one is still owed. s.changing must be
// held.
func (s *server) goSoon() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running != nil || slices.Contains(s.owed, s.last) {
		return
	}
	if s.settled.IsZero() {
		s.settled = time.Now()
	}
	s.leaving = s.leaving || s.lingers == 0
	s.stirUp()
}

func (s *server) stop(_ context.Context, r StopRequest) StopReply {
	s.changing.Lock()
	defer s.changing.Unlock()
	if errors.Is(s.admit(r.Fence), errFenced) {
		return StopReply{Status: StatusFenced}
	}
	status, t, _ := s.statusOf(r.Turn)
	if t != nil {
		why := FailStopped
		if r.Why == FailBudget {
			why = FailBudget
		}
		t.interrupt(why)
		return StopReply{Status: StatusOK}
	}
	return StopReply{Status: status}
}

func (s *server) sleep(_ context.Context, r SleepRequest) SleepReply {
	s.changing.Lock()
	defer s.changing.Unlock()
	if errors.Is(s.admit(r.Fence), errFenced) {
		return SleepReply{Status: StatusFenced}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running != nil {
		return SleepReply{Status: StatusBusy}
	}
	s.leaving = true
	s.stirUp()
	return SleepReply{Status: StatusOK}
}

func (s *server) hello(context.Context, HelloRequest) HelloReply {
	s.contact()
	s.mu.Lock()
	defer s.mu.Unlock()
	r := HelloReply{Status: StatusOK, BootID: s.boot, Version: s.cfg.Version, Fence: s.fence, Unacked: slices.Clone(s.owed)}
	if s.running != nil {
		r.Running = s.running.ID
	}
	return r
}
