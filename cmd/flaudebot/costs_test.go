package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"flaudebot/fly"
	"flaudebot/sessions"
)

// says runs flaudebot and returns what it prints.
func (w *split) says(args ...string) string {
	w.t.Helper()
	cmd := self(w.t.Context(), w.env, args...)
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		w.t.Fatalf("flaudebot %s: %v\n%s", strings.Join(args, " "), err, errOut.String())
	}
	return string(out)
}

// bill is what flaudebot costs --json prints.
func (w *split) bill(by string) (costs []sessions.Cost, total sessions.Cost) {
	w.t.Helper()
	var out struct {
		Costs []sessions.Cost
		Total sessions.Cost
	}
	if err := json.Unmarshal([]byte(w.says("costs", "--json", "--by", by)), &out); err != nil {
		w.t.Fatal(err)
	}
	return out.Costs, out.Total
}

// TestBill: a session's turns, machine and disk come into the bill of its month, once, also when the bot dies on the way; and what is on Fly is
// accounted for.
func TestBill(t *testing.T) {
	t.Parallel()
	w := splitWorld(t)
	w.env = append(w.env, "FLAUDEBOT_LINGER=0")
	bot := start(t, w.env, "serve")
	general := w.channel("general")
	root := w.say(member, general, "", mention+"remember the number 42")
	w.answer(general, root, root)
	w.answer(general, root, w.say(admin, general, root, "what number did I ask you to remember?"))

	busy := w.say(member, general, root, "take 3 seconds")
	w.until("the command runs", func() bool { return strings.Contains(toJSON(t, w.thread(general, root)), "sleep 3") })
	bot.kill()
	start(t, w.env, "serve")
	w.answer(general, root, busy)

	t.Run("by person, as Fly tells of the machine", func(t *testing.T) {
		w := w.in(t)
		people, total := w.bill("person")
		turns := map[string]int{}
		for _, c := range people {
			turns[c.Person] = c.Turns
		}
		if turns["U0MEMBER"] != 2 || turns["U0ADMIN"] != 1 || total.Turns != 3 || total.ModelUSD <= 0 || total.DiskGBDays <= 0 {
			t.Errorf("the bill is %+v, in all %+v, want two turns and one", people, total)
		}
		ran, booted := 0.0, 0
		var machines []fly.Machine
		w.until("the machine sleeps", func() bool {
			raw := toJSON(t, flyList(t, "http://"+w.fly, "test-app", "machines"))
			if err := json.Unmarshal([]byte(raw), &machines); err != nil {
				t.Fatal(err)
			}
			return len(machines) == 1 && machines[0].State == "stopped"
		})
		for _, run := range machines[0].Runs(time.Now()) {
			ran, booted = ran+run.To.Sub(run.From).Seconds(), booted+1
		}
		// What it ran on after its last answer the reaper counts later.
		if booted != 3 || total.MachineSeconds > ran+0.1 || total.MachineSeconds < ran-5 || total.MachineSeconds < 3 {
			t.Errorf("%.1f s of the machine are in the bill, it ran %.1f s in %d boots", total.MachineSeconds, ran, booted)
		}
		if !strings.Contains(w.says("costs"), root) {
			t.Error("the table does not have the session's thread")
		}
	})
	t.Run("in Slack", func(t *testing.T) {
		said := w.in(t).typed(member, general, "costs")
		for _, want := range []string{"for <#" + general + "> in ", " in 3 turns", "“remember the number 42”", "<@U0MEMBER>: ", "<@U0ADMIN>: "} {
			if !strings.Contains(said, want) {
				t.Errorf("/flaude costs lacks %q: %s", want, said)
			}
		}
	})
	t.Run("what is on Fly is accounted for, and only what was left behind goes", func(t *testing.T) {
		w := w.in(t)
		left, foreign := w.machine("fb-7b2f0f4e-5f4c-4a6b-9a0e-000000000001", map[string]string{
			sessions.MetaManaged: "flaudebot", sessions.MetaSession: "7b2f0f4e-5f4c-4a6b-9a0e-000000000001", sessions.MetaOnce: "1", sessions.MetaOwner: "U0ADMIN",
		}), w.machine("someones", nil)
		has := func(id string) bool {
			return strings.Contains(toJSON(t, flyList(t, "http://"+w.fly, "test-app", "machines")), `"id":"`+id+`"`)
		}
		account := w.says("sessions", "reap", "--dry-run")
		for _, want := range []string{general + ":" + root, "U0MEMBER", left, "U0ADMIN", "3 machines and volumes, about $0.00 so far: 0 to stop, 0 to remove", "nothing was done"} {
			if !strings.Contains(account, want) {
				t.Errorf("the account lacks %q:\n%s", want, account)
			}
		}
		if strings.Contains(account, foreign) {
			t.Errorf("the account has what is not ours:\n%s", account)
		}

		set := goodSettings()
		set.RedisURL, set.FlyBaseURL, set.FlyLogsURL, set.FlyToken, set.FlyApp = w.redis, "http://"+w.fly, "http://"+w.fly, "fly-local", "test-app"
		cfg, err := set.check("redis", "fly")
		if err != nil {
			t.Fatal(err)
		}
		var out, errOut bytes.Buffer
		c := cli{stdout: &out, stderr: &errOut}
		service, leave, err := openSessions(t.Context(), c, cfg, true)
		if err != nil {
			t.Fatal(err)
		}
		defer leave()
		for _, dry := range []bool{true, false} {
			if err := reapSessions(t.Context(), c, service, time.Now().Add(2*time.Hour), dry); err != nil {
				t.Fatalf("reap: %v\n%s", err, errOut.String())
			}
			if !strings.Contains(out.String(), "0 to stop, 1 to remove") || has(left) != dry || !has(foreign) {
				t.Errorf("dry %t: what was left is there: %t, what is another's: %t\n%s", dry, has(left), has(foreign), out.String())
			}
		}
	})
	t.Run("its end adds the rest", func(t *testing.T) {
		w := w.in(t)
		_, before := w.bill("session")
		w.typed(member, general, "end "+linkTo(general, root))
		w.until("it is gone", func() bool { return len(flyList(t, "http://"+w.fly, "test-app", "volumes")) == 0 })
		costs, after := w.bill("session")
		if len(costs) != 1 || after.Turns != 3 || after.MachineSeconds < before.MachineSeconds || after.DiskGBDays < before.DiskGBDays || after.DiskUSD <= 0 {
			t.Errorf("before %+v, after %+v: %+v", before, after, costs)
		}
		if sum := after.ModelUSD + after.MachineUSD + after.DiskUSD; math.Abs(sum-after.TotalUSD) > 1e-9 {
			t.Errorf("the parts come to $%f, the total is $%f", sum, after.TotalUSD)
		}
	})
}

// machine makes a machine at the local Fly, and returns its id when it runs.
func (w *split) machine(name string, metadata map[string]string) string {
	w.t.Helper()
	client, err := fly.New(fly.Config{BaseURL: "http://" + w.fly, LogsBaseURL: "http://" + w.fly, Token: "fly-local", HTTP: &http.Client{Transport: sessions.OwnersOnly(nil)}})
	if err != nil {
		w.t.Fatal(err)
	}
	mach, err := client.CreateMachine(w.t.Context(), "test-app", fly.CreateMachine{
		Name: name, Region: "fra", Config: &fly.MachineConfig{Image: "image", Metadata: metadata}, SkipLaunch: true,
	})
	if err != nil {
		w.t.Fatal(fmt.Errorf("machine %s: %w", name, err))
	}
	return mach.ID
}
