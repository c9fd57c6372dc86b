package fly_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"flaudebot/local/fly"
)

func TestApps(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fly.Config{})
	t.Run("one is made and found by its organization", func(t *testing.T) {
		w := w.in(t)
		got := w.do("POST", "/v1/apps", obj{"name": "second", "org_slug": "other", "network": "second"}).is(201).obj()
		if _, ok := got["created_at"].(float64); !ok || got["id"] == "" {
			t.Errorf("answer = %v, want an id and a number", got)
		}
		list := w.do("GET", "/v1/apps?org_slug=other", nil).is(200).obj()
		if list["total_apps"] != 1.0 {
			t.Errorf("list = %v, want the one", list)
		}
		w.do("GET", "/v1/apps/second", nil).is(200, `"network":"second"`, `"slug":"other"`, `"status":"pending"`)
	})
	t.Run("a name is taken once", func(t *testing.T) {
		w.in(t).do("POST", "/v1/apps", obj{"name": "acme"}).is(422, "Validation failed: Name has already been taken", `"status":"name_taken"`)
	})
	t.Run("but not by the same request again", func(t *testing.T) {
		w := w.in(t)
		first := w.do("POST", "/v1/apps", obj{"name": "third", "idempotency_key": "k"}).is(201).str("id")
		if again := w.do("POST", "/v1/apps", obj{"name": "third", "idempotency_key": "k"}).is(201).str("id"); again != first {
			t.Errorf("id = %s, want %s", again, first)
		}
		w.do("POST", "/v1/apps", obj{"name": "fourth", "idempotency_key": "k"}).is(422)
	})
	t.Run("a name has its rule", func(t *testing.T) {
		for _, name := range []string{"", "Acme", "a_b", "1st", strings.Repeat("a", 63)} {
			w.in(t).do("POST", "/v1/apps", obj{"name": name}).refused(422, "Validation failed: Name under 63 chars")
		}
	})
	t.Run("it goes with all that is in it", func(t *testing.T) {
		w := newWorld(t, fly.Config{})
		vol := w.volume()
		id := w.started("m", mounting(vol, "/data"))
		w.do("GET", "/v1/apps/acme", nil).is(200, `"machine_count":1`, `"volume_count":1`, `"status":"deployed"`)
		w.do("DELETE", "/v1/apps/acme?force=true", nil).is(202)
		w.do("GET", "/v1/apps/acme", nil).is(404)
		w.wait(id, "destroyed")
		w.do("GET", "/v1/apps/acme/volumes/"+vol, nil).is(200, `"state":"pending_destroy"`)
	})
}

func TestVolumes(t *testing.T) {
	t.Parallel()
	const path = "/v1/apps/acme/volumes"
	t.Run("its name has its rule", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{})
		for _, name := range []string{"", "a-b", "Data", strings.Repeat("a", 31)} {
			w.do("POST", path, obj{"name": name, "region": "fra"}).refused(422, "Validation failed")
		}
		w.do("POST", path, obj{"name": strings.Repeat("a", 30), "region": "fra"}).is(200)
		w = newWorld(t, fly.Config{Unsettled: fly.Unsettled{VolumeNameIs400: true}})
		w.do("POST", path, obj{"name": "a-b", "region": "fra"}).refused(400, "Validation failed")
	})
	t.Run("it has 3 GB unless it is told", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{})
		got := w.do("POST", path, obj{"name": "a", "region": "fra"}).is(200).obj()
		if got["size_gb"] != 3.0 || got["state"] != "created" || got["attached_machine_id"] != nil || got["encrypted"] != true {
			t.Errorf("volume = %v, want 3 GB, created, encrypted, attached to none", got)
		}
		id, _ := got["id"].(string)
		if !strings.HasPrefix(id, "vol_") || len(id) < 20 || len(id) > 21 {
			t.Errorf("id = %s, want vol_ and 16 or 17 more", id)
		}
		w.do("POST", path, obj{"name": "a", "region": "fra", "size_gb": 0}).is(422)
		w.do("POST", path, obj{"name": "a", "region": "fra", "size_gb": 501}).is(422)
	})
	t.Run("it grows only", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{})
		id := w.volume()
		got := w.do("PUT", path+"/"+id+"/extend", obj{"size_gb": 2}).is(200).obj()
		if at(got, "volume.size_gb") != 2.0 || got["needs_restart"] != false {
			t.Errorf("answer = %v, want 2 GB and no restart", got)
		}
		w.do("PUT", path+"/"+id+"/extend", obj{"size_gb": 1}).is(422)
		w.do("PUT", path+"/"+id, obj{"snapshot_retention": 9}).is(200, `"snapshot_retention":9`)
	})
	t.Run("it is of one region, unless lists are switched on", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{})
		w.do("POST", path, obj{"name": "a", "region": "cdg,eu"}).refused(400, "cdg,eu")
		w = newWorld(t, fly.Config{Unsettled: fly.Unsettled{VolumeTakesRegions: true}})
		w.do("POST", path, obj{"name": "a", "region": "cdg,eu"}).is(200, `"region":"cdg"`)
	})
	t.Run("what is not emulated is refused", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{})
		w.do("POST", path, obj{"name": "a", "region": "fra", "source_volume_id": "vol_1"}).refused(501, "unimplemented")
		w.do("POST", path, obj{"name": "a", "region": "fra", "snapshot_id": "vs_1"}).refused(501, "unimplemented")
	})
	t.Run("one machine has it", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{})
		vol := w.volume()
		id := w.started("a", mounting(vol, "/data"))
		if got := w.do("GET", path+"/"+vol, nil).str("attached_machine_id"); got != id {
			t.Errorf("attached to %s, want %s", got, id)
		}
		w.create("b", mounting(vol, "/data")).refused(412, "failed_precondition: volume is currently bound to machine: "+id)
		w.stopped(id)
		w.create("b", mounting(vol, "/data")).refused(412, "volume is currently bound to machine: "+id)
		w.do("DELETE", path+"/"+vol, nil).refused(412, "failed_precondition: volume is currently bound to machine: "+id)
	})
	t.Run("it outlives its machine, and is free for the next", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, fly.Config{})
		vol := w.volume()
		id := w.started("a", mounting(vol, "/data"))
		w.do("DELETE", of(id, "?kill=true"), nil).is(200)
		w.wait(id, "destroyed")
		w.do("GET", path+"/"+vol, nil).is(200, `"attached_machine_id":null`, `"state":"created"`)
		w.started("b", mounting(vol, "/data"))
	})
	t.Run("a deleted one answers for a while, and is of no use", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		w := newWorld(t, fly.Config{Dir: dir})
		vol := w.volume()
		for range 2 {
			w.do("DELETE", path+"/"+vol, nil).is(200, `"state":"pending_destroy"`)
		}
		w.do("GET", path+"/"+vol, nil).is(200, `"state":"pending_destroy"`)
		w.create("a", mounting(vol, "/data")).refused(400, "volume not found")
		if _, err := os.Stat(filepath.Join(dir, "volumes", vol)); err == nil {
			t.Error("its folder is still there")
		}
		w.do("GET", path+"/vol_nonsense", nil).refused(404, "volume not found")
	})
	t.Run("it tells how much is on it", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		w := newWorld(t, fly.Config{Dir: dir})
		vol := w.volume()
		if err := os.WriteFile(filepath.Join(dir, "volumes", vol, "x"), make([]byte, 1000), 0o600); err != nil {
			t.Fatal(err)
		}
		got := w.do("GET", path+"/"+vol, nil).obj()
		if got["bytes_used"] != 1000.0 || got["bytes_total"] != float64(1<<30) {
			t.Errorf("bytes used and total = %v, %v", got["bytes_used"], got["bytes_total"])
		}
		if got := w.do("GET", path, nil).is(200).list(); len(got) != 1 || got[0]["id"] != vol {
			t.Errorf("list = %v, want the one", got)
		}
	})
}
