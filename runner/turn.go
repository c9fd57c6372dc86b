package runner

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
	"unicode"
)

// turn is a turn that is running.
type turn struct {
	Turn
	cfg     Config
	prompt  string
	secrets Secrets
	journal *journal
	puts    string // where its files were put
	payload []byte // what an errand brings
	diff    []byte // what the turn changed
	pulls   *pullFinder
	done    chan struct{} // closed when the outcome is on disk
	// pictures are attachments that Claude is shown; unshown are those of which one expects it.
	pictures []picture
	unshown  []Unshown

	stopNow chan struct{}
	once    sync.Once
	why     Failure // written before stopNow is closed, read after
}

func newTurn(cfg Config, t Turn, prompt string, sec Secrets, j *journal, puts string) *turn {
	cfg.gitName, cfg.gitEmail = t.Settings.GitName, t.Settings.GitEmail
	return &turn{
		Turn: t, cfg: cfg, prompt: prompt, secrets: sec, journal: j, puts: puts,
		done: make(chan struct{}), stopNow: make(chan struct{}), pulls: newPullFinder(t.Repos, t.Settings.Forges),
	}
}

// interrupt stops the turn; the first reason counts.
func (t *turn) interrupt(why Failure) {
	t.once.Do(func() {
		t.why = why
		close(t.stopNow)
	})
}

func (t *turn) phase(p Phase) { t.journal.add("", Event{Kind: KindPhase, Phase: p}) }

// stopped reports whether the turn is to stop.
func (t *turn) stopped() bool {
	select {
	case <-t.stopNow:
		return true
	default:
		return false
	}
}

// run brings the turn to an outcome. Nothing that it started is left then.
func (t *turn) run() record {
	began := time.Now().UTC()
	if t.Settings.TimeoutSeconds > 0 {
		timer := time.AfterFunc(time.Duration(t.Settings.TimeoutSeconds)*time.Second, func() { t.interrupt(FailTimeout) })
		defer timer.Stop()
	}
	out, answer := t.work()
	t.cfg.sweep(0)
	hide := redactor(t.secrets)
	out.Turn, out.StartedAt, out.EndedAt = t.ID, began, time.Now().UTC()
	answer = strings.ToValidUTF8(hide.Replace(answer), "\uFFFD")
	out.Error = clip(strings.ToValidUTF8(hide.Replace(out.Error), "\uFFFD"), 2000)
	out.AnswerBytes = int64(len(answer))
	for i, name := range out.Files {
		out.Files[i] = hide.Replace(name)
	}
	if c := out.Changes; c != nil && t.Errand == nil {
		for i, f := range c.Files {
			c.Files[i].Path, c.Files[i].Was = hide.Replace(f.Path), hide.Replace(f.Was)
		}
		c.DiffBytes = t.cfg.keepDiff(t.ID, hide.Replace(strings.ToValidUTF8(string(t.diff), "\uFFFD")))
	}
	for i, r := range out.Repos {
		out.Repos[i].Dir, out.Repos[i].Branch = hide.Replace(r.Dir), hide.Replace(r.Branch)
	}
	for i, b := range out.Branches {
		out.Branches[i].Name, out.Branches[i].URL = hide.Replace(b.Name), hide.Replace(b.URL)
	}
	if t.cfg.enclosed {
		out.Unreached = t.cfg.enclosure.asked()
	}
	out.NewPull = hide.Replace(out.NewPull)
	payload := hide.Replace(string(t.payload))
	out.PayloadBytes = int64(len(payload))
	return record{Outcome: out, Answer: answer, payload: []byte(payload)}
}

// work does the turn's steps.
func (t *turn) work() (Outcome, string) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-t.stopNow:
			t.phase(PhaseStopping)
			cancel() // ends a clone; Claude Code is interrupted politely, see claude.go
		case <-ctx.Done():
		}
	}()
	if err := t.enclose(); err != nil {
		return Outcome{ExitCode: 1, Failure: FailSettings, Error: err.Error()}, ""
	}
	if t.Errand != nil {
		return t.errand(ctx)
	}
	if err := t.cfg.cloneAll(ctx, t); err != nil {
		if t.stopped() {
			return t.cut(Outcome{}), ""
		}
		return Outcome{ExitCode: 1, Failure: FailClone, Error: err.Error()}, ""
	}
	if err := t.cfg.sign(t.Turn); err != nil {
		failure := FailStart
		if isFull(err) {
			failure = FailDisk
		}
		return Outcome{ExitCode: 1, Failure: failure, Error: err.Error()}, ""
	}
	if err := t.setUp(ctx); err != nil {
		return t.notSetUp(err), ""
	}
	if err := t.placeFiles(); err != nil {
		failure := FailFile
		if isFull(err) {
			failure = FailDisk
		}
		return Outcome{ExitCode: 1, Failure: failure, Error: err.Error()}, ""
	}
	before, remotes, tips, began := t.lookBefore(ctx), t.cfg.remotesOf(t.Repos), t.cfg.tips(t.Repos), time.Now()
	if t.stopped() {
		return t.cut(Outcome{}), ""
	}
	out, answer := t.claude()
	if !t.stopped() || t.why != FailInterrupted { // else there is no time for it
		out.Changes, t.diff = t.lookAfter(before)
	}
	t.pulls.answer(answer)
	out.Pulls, out.Branches = t.pulls.found, t.cfg.pushed(t.Repos, remotes, t.Settings.Forges)
	out.Commits = t.commits(tips, began)
	out.Unshown = t.unshown
	out.Repos = t.cfg.repoStates(t.Repos)
	out.Files = listFiles(t.cfg.workspace())
	return out, answer
}

// notSetUp is the outcome of a turn whose set-up command did not come to a good end.
func (t *turn) notSetUp(err error) Outcome {
	var failed setUpError
	switch {
	case t.stopped():
		return t.cut(Outcome{})
	case errors.As(err, &failed):
		return Outcome{ExitCode: failed.code, Failure: FailSetUp, Error: err.Error()}
	case isFull(err):
		return Outcome{ExitCode: 1, Failure: FailDisk, Error: err.Error()}
	}
	return Outcome{ExitCode: 1, Failure: FailSetUp, Error: err.Error()}
}

// cut is the outcome of a turn that was stopped.
func (t *turn) cut(out Outcome) Outcome {
	out.Failure, out.ExitCode = t.why, 130
	if t.why == FailTimeout {
		out.ExitCode = 124
		out.Error = fmt.Sprintf("the turn took longer than %s", time.Duration(t.Settings.TimeoutSeconds)*time.Second)
	}
	return out
}

// placeFiles moves the turn's attachments into the workspace, where Claude's user owns them.
func (t *turn) placeFiles() error {
	if len(t.Files) == 0 {
		return nil
	}
	dir := t.cfg.attachments()
	if err := t.cfg.makeOwned(dir); err != nil {
		return err
	}
	// Claude's user owns the workspace: a link in it must not lead root elsewhere.
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	for _, f := range t.Files {
		raw, err := f.read(putPath(t.puts, "file/"+f.Name))
		if err != nil {
			return err
		}
		_ = root.Remove(f.Name)
		if err := root.WriteFile(f.Name, raw, 0o644); err != nil {
			return fmt.Errorf("place attachment %s: %w", f.Name, err)
		}
		if t.cfg.UID >= 0 {
			if err := root.Lchown(f.Name, t.cfg.UID, t.cfg.UID); err != nil {
				return fmt.Errorf("place attachment %s: %w", f.Name, err)
			}
		}
		t.show(f.Name, raw)
		_ = os.Remove(putPath(t.puts, "file/"+f.Name)) // room for the next
	}
	return nil
}

// makeOwned makes a folder of Claude's user.
func (c Config) makeOwned(dir string) error {
	if info, err := os.Lstat(dir); err == nil {
		if !info.IsDir() {
			return fmt.Errorf("%s is in the way: it is no folder", dir)
		}
		return nil
	}
	if err := os.Mkdir(dir, 0o755); err != nil { //nolint:gosec // one machine, one person
		return err
	}
	if c.UID >= 0 {
		return os.Lchown(dir, c.UID, c.UID)
	}
	return nil
}

// listFiles names up to 200 files of the workspace, in at most about 8 KiB: the list travels in one reply.
func listFiles(dir string) []string {
	var out []string
	bytes := 0
	errFull := errors.New("enough")
	_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		switch {
		case err != nil:
			return nil //nolint:nilerr // what cannot be read is not listed
		case d.IsDir() && (d.Name() == ".git" || d.Name() == "node_modules"):
			return filepath.SkipDir
		case d.IsDir():
			return nil
		case len(out) == 200 || bytes > 8<<10:
			return errFull
		}
		if rel, err := filepath.Rel(dir, path); err == nil {
			out = append(out, strings.ToValidUTF8(rel, "\uFFFD"))
			bytes += jsonSize(rel) + 1
		}
		return nil
	})
	return out
}

func isBlank(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return !unicode.IsSpace(r) }) < 0
}
