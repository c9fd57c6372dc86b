package sessions

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"flaudebot/fly"
	"flaudebot/runner"
)

// metaFence is the metadata of a machine that holds the newest fence under which something was handed over in its config. Metadata is changed
// without a restart, so that a new owner of a turn that runs can raise it.
const metaFence = "flaudebot_fence"

// ConfigHandover hands turns over in the machine's config, as the seed system does, and reads what becomes of them in the machine's log: for
// where exec cannot be used. A runner reads its config at boot, so that every turn boots the machine, and the machine stops with the turn:
//
//   - what is put is kept here until the take;
//   - a take writes it all into a file of the config, whose update starts the machine. The rest of the config is kept;
//   - the runner tells in its log that it took the turn, what happens, and the outcome, see [runner.LogLine];
//   - a stop is SIGUSR1;
//   - an acknowledgement takes the prompt and the secrets out of the config again.
//
// A log may lose lines. When the machine has stopped and the outcome is not whole, the machine is started as it is: the runner finds that
// the turn has run and tells it again.
//
// It is safe for concurrent use. What it remembers it finds again in the config and the log.
type ConfigHandover struct {
	Fly *fly.Client
	Log *slog.Logger // nil: none
	// Boot bounds the time from an update of the config to a runner that tells something; 0: 5 minutes.
	Boot time.Duration
	// Late is for how long after the machine's end its last lines are waited for; 0: 10 s.
	Late time.Duration

	mu       sync.Mutex
	puts     map[string]*putting // guarded by mu; :: machine → what was put for its next take
	readings map[string]*reading // guarded by mu; :: machine → the log of its turn
}

// putting is what was put for a turn.
type putting struct {
	turn  string
	fence int64
	files map[string][]byte
	at    time.Time
}

// errQuiet says that the machine has ended, and that not all of its turn was in the log.
var errQuiet = fmt.Errorf("%w in the machine's log", errRunner)

// startsMachines reports that machines are left stopped for it: what it hands over is read at boot.
func (h *ConfigHandover) startsMachines() bool { return true }

// Call implements [Handover].
func (h *ConfigHandover) Call(ctx context.Context, at Target, verb string, request, reply any) error {
	var err error
	switch r := request.(type) {
	case runner.PutRequest:
		err = answer[runner.PutReply](reply)(h.put(at, r), nil)
	case runner.TakeRequest:
		err = answer[runner.TakeReply](reply)(h.take(ctx, at, r))
	case runner.EventsRequest:
		err = answer[runner.EventsReply](reply)(h.events(ctx, at, r))
	case runner.ResultRequest:
		err = answer[runner.ResultReply](reply)(h.result(ctx, at, r))
	case runner.StopRequest:
		err = answer[runner.StopReply](reply)(h.stop(ctx, at, r))
	case runner.AckRequest:
		err = answer[runner.AckReply](reply)(h.ack(ctx, at, r))
	case runner.HelloRequest:
		err = answer[runner.HelloReply](reply)(h.hello(ctx, at))
	default:
		err = errors.New("that cannot be asked by way of the machine's config")
	}
	if err != nil {
		return fmt.Errorf("ask the runner to %s by the machine's config: %w", verb, err)
	}
	return nil
}

// answer puts a reply where the caller wants it.
func answer[Reply any](to any) func(Reply, error) error {
	return func(reply Reply, err error) error {
		if err != nil {
			return err
		}
		into, ok := to.(*Reply)
		if !ok {
			return fmt.Errorf("%T is no place for a %T", to, reply)
		}
		*into = reply
		return nil
	}
}

func (h *ConfigHandover) logger() *slog.Logger {
	if h.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return h.Log
}

// maxPuts bounds what is put for one turn, in bytes: with base64 it is what may be handed over at once.
const maxPuts = runner.MaxHanded / 4 * 3

// forgottenPuts is the age at which what was put for a turn that was never taken is let go.
const forgottenPuts = time.Hour

func (h *ConfigHandover) put(at Target, r runner.PutRequest) runner.PutReply {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.puts == nil {
		h.puts = map[string]*putting{}
	}
	now := time.Now()
	maps.DeleteFunc(h.puts, func(_ string, p *putting) bool { return now.Sub(p.at) > forgottenPuts })
	p := h.puts[at.Machine]
	if p == nil || p.turn != r.Turn || p.fence != r.Fence {
		p = &putting{turn: r.Turn, fence: r.Fence, files: map[string][]byte{}}
		h.puts[at.Machine] = p
	}
	p.at = now
	have := int64(len(p.files[r.Name]))
	if r.Offset > have || r.Offset < 0 {
		return runner.PutReply{Status: runner.StatusInvalid, Failure: runner.FailHandover, Reason: fmt.Sprintf("bytes %d to %d are missing", have, r.Offset)}
	}
	file := append(slices.Clone(p.files[r.Name][:r.Offset]), r.Data...)
	p.files[r.Name] = file
	if all := p.size(); r.Name != "prompt" && all > maxPuts { // a prompt is packed well: the take will tell
		delete(p.files, r.Name)
		return runner.PutReply{Status: runner.StatusInvalid, Failure: FailTooMuch, Reason: tooMuch()}
	}
	return runner.PutReply{Status: runner.StatusOK, Size: int64(len(file))}
}

// tooMuch is the reason that a person reads.
func tooMuch() string {
	return fmt.Sprintf("%d KB are the most that fit into the config of a machine", maxPuts>>10)
}

func (p *putting) size() int {
	n := 0
	for name, file := range p.files {
		if name != "prompt" {
			n += len(file)
		}
	}
	return n
}

// putFor returns what was put for a turn.
func (h *ConfigHandover) putFor(at Target, turn string, fence int64) []runner.HandedPut {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.puts[at.Machine]
	if p == nil || p.turn != turn || p.fence != fence {
		return nil
	}
	var out []runner.HandedPut
	for _, name := range slices.Sorted(maps.Keys(p.files)) {
		out = append(out, runner.HandedPut{Name: name, Data: p.files[name]})
	}
	return out
}

// look reads the machine and what is handed over in its config.
func (h *ConfigHandover) look(ctx context.Context, at Target) (*fly.Machine, runner.Handed, error) {
	mach, err := h.Fly.Machine(ctx, at.App, at.Machine)
	if err != nil {
		return nil, runner.Handed{}, err
	}
	if err := hostAway(mach); err != nil {
		return nil, runner.Handed{}, err
	}
	if mach.Config == nil {
		return nil, runner.Handed{}, fmt.Errorf("read the config of machine %s: %w", at.Machine, errHostAway)
	}
	had, err := handedIn(mach.Config)
	if err != nil {
		h.logger().WarnContext(ctx, "what the machine's config hands over cannot be read", "machine", at.Machine, "err", err)
	}
	return mach, had, nil
}

// handedIn is what a config hands over.
func handedIn(c *fly.MachineConfig) (runner.Handed, error) {
	i := slices.IndexFunc(c.Files, isHanded)
	if i < 0 {
		return runner.Handed{}, nil
	}
	return runner.DecodeHanded(c.Files[i].RawValue)
}

func isHanded(f fly.File) bool { return f.GuestPath == runner.HandedPath }

// isUp reports whether the machine runs, or is on its way there.
func isUp(mach *fly.Machine) bool {
	switch mach.State {
	case "started", "starting", "restarting", "replacing", "updating", "stopping":
		return true
	}
	return false
}

// fenceOf is the newest fence that the machine has seen by this way.
func fenceOf(mach *fly.Machine, had runner.Handed) int64 {
	n, _ := strconv.ParseInt(mach.Config.Metadata[metaFence], 10, 64)
	return max(n, had.Fence)
}

func (h *ConfigHandover) take(ctx context.Context, at Target, r runner.TakeRequest) (runner.TakeReply, error) {
	mach, had, err := h.look(ctx, at)
	if err != nil {
		return runner.TakeReply{}, err
	}
	fresh := had.Take == nil || had.Turn() != r.Turn.ID
	switch {
	case fenceOf(mach, had) > r.Fence:
		return runner.TakeReply{Status: runner.StatusFenced}, nil
	case fresh && had.Turn() != "" && had.Turn() != r.Turn.ID && isUp(mach):
		return runner.TakeReply{Status: runner.StatusBusy}, nil
	case fresh:
		next := runner.Handed{Key: runner.NewLogKey(), Fence: r.Fence, Take: &r, Puts: h.putFor(at, r.Turn.ID, r.Fence), Acked: had.Acked}
		if mach, err = h.write(ctx, at, mach, next, false); errors.Is(err, errTooMuch) {
			return runner.TakeReply{Status: runner.StatusInvalid, Failure: FailTooMuch, Reason: tooMuch()}, nil
		} else if err != nil {
			return runner.TakeReply{}, err
		}
		had = next
	case fenceOf(mach, had) < r.Fence:
		if err := h.Fly.SetMetadata(ctx, at.App, at.Machine, metaFence, strconv.FormatInt(r.Fence, 10)); err != nil {
			return runner.TakeReply{}, err
		}
	}
	rd, err := h.reading(at, mach, had)
	if err != nil {
		return runner.TakeReply{}, err
	}
	reply, err := h.told(ctx, at, rd)
	if err != nil {
		return runner.TakeReply{}, err
	}
	h.mu.Lock()
	delete(h.puts, at.Machine)
	h.mu.Unlock()
	switch end := rd.outcome(); {
	case fresh && reply.Status == runner.StatusAccepted:
	case end != nil:
		reply.Status, reply.Outcome = runner.StatusDone, &end.Outcome
	case reply.Status == runner.StatusAccepted || reply.Status == runner.StatusDone: // its outcome is to come
		reply.Status = runner.StatusRunning
	}
	return reply, nil
}

var errTooMuch = errors.New("it is too much for the machine's config")

// write replaces what the config hands over, and keeps the rest. Unless at rest, the machine is started with it.
func (h *ConfigHandover) write(ctx context.Context, at Target, mach *fly.Machine, next runner.Handed, rest bool) (*fly.Machine, error) {
	raw, err := next.Encode()
	if err != nil {
		return nil, err
	}
	if len(raw) > runner.MaxHanded {
		return nil, errTooMuch
	}
	config := *mach.Config
	config.Files = append(slices.DeleteFunc(slices.Clone(config.Files), isHanded), fly.File{GuestPath: runner.HandedPath, RawValue: raw, Mode: 0o600})
	config.Metadata = maps.Clone(config.Metadata)
	if config.Metadata == nil {
		config.Metadata = map[string]string{}
	}
	config.Metadata[metaFence] = strconv.FormatInt(next.Fence, 10)
	updated, err := h.Fly.UpdateMachine(ctx, at.App, at.Machine, fly.UpdateMachine{Config: &config, CurrentVersion: mach.InstanceID, SkipLaunch: rest}, at.Nonce)
	if err != nil {
		return nil, err
	}
	if updated.Config == nil {
		updated.Config = &config
	}
	return updated, nil
}

// told waits until the runner has told how it took the turn.
func (h *ConfigHandover) told(ctx context.Context, at Target, rd *reading) (runner.TakeReply, error) {
	limit := cmp.Or(h.Boot, 5*time.Minute)
	inner, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	reply, err := h.awaitTold(inner, at, rd)
	if err != nil && inner.Err() != nil && ctx.Err() == nil {
		return reply, fmt.Errorf("%w within %s", errNotUp, limit) // it was waited for long enough
	}
	return reply, err
}

func (h *ConfigHandover) awaitTold(ctx context.Context, at Target, rd *reading) (runner.TakeReply, error) {
	started := false // by this call
	for {
		if err := h.listen(ctx, at, rd, lookEvery, func() bool { return rd.taken() != nil }); err != nil {
			return runner.TakeReply{}, err
		}
		if reply := rd.taken(); reply != nil {
			return *reply, nil
		}
		mach, err := h.Fly.Machine(ctx, at.App, at.Machine)
		if err != nil {
			return runner.TakeReply{}, err
		}
		switch {
		case hostAway(mach) != nil:
			return runner.TakeReply{}, hostAway(mach)
		case isUp(mach):
		case started || mach.State != "stopped" && mach.State != "suspended" && mach.State != "created":
			if err := h.lastWords(ctx, at, rd, func() bool { return rd.taken() != nil }); err != nil {
				return runner.TakeReply{}, err
			}
		default: // an update left it stopped, or it ended and what it told was lost
			if err := h.lastWords(ctx, at, rd, func() bool { return rd.taken() != nil }); !errors.Is(err, errQuiet) {
				continue
			}
			if err := h.Fly.StartMachine(ctx, at.App, at.Machine, at.Nonce); err != nil {
				return runner.TakeReply{}, err
			}
			started = true
		}
	}
}

// lookEvery is how often the machine is looked at while its log is quiet.
const lookEvery = 10 * time.Second

// lastWords reads what a machine that has ended may still have told: its whole log again, for as long as lines may be late. errQuiet: it
// was not enough.
func (h *ConfigHandover) lastWords(ctx context.Context, at Target, rd *reading, enough func() bool) error {
	rd.again()
	if err := h.listen(ctx, at, rd, cmp.Or(h.Late, 10*time.Second), enough); err != nil {
		return err
	}
	if !enough() {
		return errQuiet
	}
	return nil
}

func (h *ConfigHandover) events(ctx context.Context, at Target, r runner.EventsRequest) (runner.EventsReply, error) {
	rd, err := h.find(ctx, at, r.Turn)
	if err != nil {
		return runner.EventsReply{}, err
	}
	if rd == nil {
		return runner.EventsReply{}, fmt.Errorf("%w: the turn is not in the machine's config", errRunner)
	}
	news := func() bool { return rd.news(r.After) }
	if err := h.listen(ctx, at, rd, time.Duration(r.WaitMS)*time.Millisecond, news); err != nil {
		return runner.EventsReply{}, err
	}
	if news() {
		return rd.since(r.After), nil
	}
	mach, err := h.Fly.Machine(ctx, at.App, at.Machine)
	if err != nil || isUp(mach) {
		return runner.EventsReply{Status: runner.StatusRunning}, err
	}
	if err := h.lastWords(ctx, at, rd, rd.over); err != nil {
		return runner.EventsReply{}, err
	}
	return rd.since(r.After), nil
}

func (h *ConfigHandover) result(ctx context.Context, at Target, r runner.ResultRequest) (runner.ResultReply, error) {
	h.mu.Lock()
	rd := h.readings[at.Machine]
	h.mu.Unlock()
	if rd != nil && rd.turn == r.Turn && rd.outcome() != nil { // pieces of what is here already
		return rd.result(r), nil
	}
	mach, had, err := h.look(ctx, at)
	if err != nil {
		return runner.ResultReply{}, err
	}
	asked := false
	if had.Turn() != r.Turn {
		if isUp(mach) {
			return runner.ResultReply{}, fmt.Errorf("%w: it was handed the turn in another way, and is still at it", errRunner)
		}
		had = runner.Handed{Key: runner.NewLogKey(), Fence: fenceOf(mach, had), Ask: r.Turn, Acked: had.Acked}
		if mach, err = h.write(ctx, at, mach, had, false); err != nil {
			return runner.ResultReply{}, err
		}
		asked = true
	}
	if rd, err = h.reading(at, mach, had); err != nil {
		return runner.ResultReply{}, err
	}
	if !asked && !isUp(mach) {
		if err := h.lastWords(ctx, at, rd, rd.over); errors.Is(err, errQuiet) {
			rd.forgetTaken()
			err = h.Fly.StartMachine(ctx, at.App, at.Machine, at.Nonce)
			if err != nil {
				return runner.ResultReply{}, err
			}
		} else if err != nil {
			return runner.ResultReply{}, err
		}
	}
	if _, err := h.told(ctx, at, rd); err != nil {
		return runner.ResultReply{}, err
	}
	return rd.result(r), nil
}

func (h *ConfigHandover) stop(ctx context.Context, at Target, r runner.StopRequest) (runner.StopReply, error) {
	mach, had, err := h.look(ctx, at)
	switch {
	case err != nil:
		return runner.StopReply{}, err
	case fenceOf(mach, had) > r.Fence:
		return runner.StopReply{Status: runner.StatusFenced}, nil
	case had.Turn() != r.Turn:
		return runner.StopReply{Status: runner.StatusUnknown}, nil
	case !isUp(mach):
		return runner.StopReply{Status: runner.StatusDone}, nil
	}
	rd, err := h.reading(at, mach, had)
	if err != nil {
		return runner.StopReply{}, err
	}
	// A runner that is not up yet hears no signal.
	if err := h.listen(ctx, at, rd, time.Second, func() bool { return rd.taken() != nil }); err != nil {
		return runner.StopReply{}, err
	}
	if rd.taken() == nil {
		return runner.StopReply{}, fmt.Errorf("%w: it has not told yet that it is up", errRunner)
	}
	if rd.outcome() != nil {
		return runner.StopReply{Status: runner.StatusDone}, nil
	}
	if err := h.Fly.SignalMachine(ctx, at.App, at.Machine, "SIGUSR1"); err != nil {
		return runner.StopReply{}, err
	}
	return runner.StopReply{Status: runner.StatusOK}, nil
}

// leaveTime bounds how long a runner that has told its outcome may take to end.
const leaveTime = 15 * time.Second

// ackedKept is how many acknowledged turns a config names: the runner hears of them at its next boot.
const ackedKept = 20

// ack sees the machine stopped, compares its exit code with the turn's, and takes the turn out of the config.
func (h *ConfigHandover) ack(ctx context.Context, at Target, r runner.AckRequest) (runner.AckReply, error) {
	wait, cancel := context.WithTimeout(ctx, leaveTime)
	defer cancel()
	mach, had, err := h.look(wait, at)
	if err == nil && isUp(mach) && had.Turn() == r.Turn {
		if _, err = h.Fly.WaitMachine(wait, at.App, at.Machine, fly.WaitMachine{States: []string{"stopped"}}); err == nil {
			mach, had, err = h.look(wait, at)
		}
	}
	switch {
	case err != nil:
		return runner.AckReply{}, err
	case fenceOf(mach, had) > r.Fence:
		return runner.AckReply{Status: runner.StatusFenced}, nil
	case had.Turn() == "" && isUp(mach):
		return runner.AckReply{}, fmt.Errorf("%w: nothing was handed to it, and it does not stop by itself", errRunner)
	case had.Turn() != r.Turn:
		h.forget(at)
		return runner.AckReply{Status: runner.StatusUnknown}, nil
	}
	h.checkExit(ctx, at, mach, r.Turn)
	acked := append(had.Acked, r.Turn)
	next := runner.Handed{Fence: r.Fence, Acked: acked[max(0, len(acked)-ackedKept):]}
	if _, err := h.write(ctx, at, mach, next, true); err != nil {
		return runner.AckReply{}, err
	}
	h.forget(at)
	return runner.AckReply{Status: runner.StatusOK}, nil
}

// checkExit compares what the runner told with what Fly saw of its end.
func (h *ConfigHandover) checkExit(ctx context.Context, at Target, mach *fly.Machine, turn string) {
	h.mu.Lock()
	rd := h.readings[at.Machine]
	h.mu.Unlock()
	exit, ok := mach.LastExit()
	if rd == nil || rd.turn != turn || !ok {
		return
	}
	if end := rd.outcome(); end != nil && end.Outcome.ExitCode != exit.ExitCode && !exit.RequestedStop {
		h.logger().WarnContext(ctx, "the machine did not exit with its turn's code", "machine", at.Machine, "turn", turn,
			"told", end.Outcome.ExitCode, "exit", exit.ExitCode, "oom", exit.OOMKilled)
	}
}

func (h *ConfigHandover) hello(ctx context.Context, at Target) (runner.HelloReply, error) {
	mach, had, err := h.look(ctx, at)
	if err != nil {
		return runner.HelloReply{}, err
	}
	reply := runner.HelloReply{Status: runner.StatusOK, Fence: fenceOf(mach, had)}
	if isUp(mach) {
		reply.Running = had.Turn()
	}
	return reply, nil
}
