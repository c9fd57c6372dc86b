package slack_test

import (
	"net/http"
	"strings"
	"testing"

	"flaudebot/local/slack"
)

func TestFiles(t *testing.T) {
	t.Parallel()
	// upload does the first two of the three steps.
	upload := func(w *world, token, name, data string) any {
		res := w.api(token, "files.getUploadURLExternal", args{"filename": name, "length": len(data)})
		if put := w.do(http.MethodPost, res["upload_url"].(string), "", "application/octet-stream", []byte(data), nil); put.status != http.StatusOK {
			w.t.Fatalf("upload = %d %s", put.status, put.raw)
		}
		return res["file_id"]
	}
	in(t, "an upload becomes a message in the thread", slack.Config{}, func(_ *testing.T, w *world) {
		s := w.connect()
		root := w.post(member, general, "", "root")
		s.event()
		id := upload(w, bot, "answer-1.md", "# All of it\n")
		s.none()
		res := w.api(bot, "files.completeUploadExternal", args{
			"files": []any{args{"id": id, "title": "Answer"}}, "channel_id": general, "thread_ts": root, "initial_comment": "the rest",
		})
		w.want("answer", res, args{"files.0.id": id, "files.0.title": "Answer", "ts": nil})
		e := s.event()
		w.want("event", e, args{
			"subtype": "file_share", "text": "the rest", "thread_ts": root, "bot_id": "B0FLAUDE", "files.0.id": id, "files.0.name": "answer-1.md",
			"files.0.title": "Answer", "files.0.size": 12, "files.0.mimetype": "text/plain",
		})
		w.want("files.info", w.api(bot, "files.info", args{"file": id}), args{
			"file.shares.public." + general + ".0.ts": e["ts"], "file.shares.public." + general + ".0.thread_ts": root,
		})
	})
	in(t, "a mention with a file is a mention with a file", slack.Config{}, func(_ *testing.T, w *world) {
		s := w.connect()
		id := upload(w, member, "a.csv", "1,2\n")
		w.api(member, "files.completeUploadExternal", args{"files": []any{args{"id": id}}, "channel_id": general, "initial_comment": mention + "read this"})
		w.want("message", s.event(), args{"subtype": "file_share", "files.0.title": "a.csv"})
		w.want("app_mention", s.event(), args{"type": "app_mention", "subtype": nil, "files.0.name": "a.csv"})
	})
	in(t, "the bytes come back to those who may see them, and a login page to others", slack.Config{}, func(t *testing.T, w *world) {
		data := "\x89PNG\r\n\x1a\n and some \x00 bytes"
		id := upload(w, member, "a.png", data)
		w.api(member, "files.completeUploadExternal", args{"files": []any{args{"id": id}}, "channel_id": payments})
		file := w.api(bot, "files.info", args{"file": id})["file"]
		address := at(file, "url_private_download").(string)
		w.want("file", file, args{"mimetype": "image/png"})
		res := w.do(http.MethodGet, address, bot, "", nil, nil)
		if res.raw != data || !strings.Contains(res.header.Get("Content-Disposition"), "a.png") || res.header.Get("Content-Security-Policy") != "sandbox" {
			t.Errorf("download = %q %v", res.raw, res.header)
		}
		for _, token := range []string{"", guest, "xoxb-other"} {
			res := w.do(http.MethodGet, address, token, "", nil, nil)
			if res.status != http.StatusOK || !strings.HasPrefix(res.header.Get("Content-Type"), "text/html") || strings.Contains(res.raw, "PNG") {
				t.Errorf("with %q: %d %s", token, res.status, res.raw)
			}
		}
		w.refused(guest, "files.info", args{"file": id}, "file_not_found")
	})
	in(t, "a form carries the bytes too", slack.Config{}, func(t *testing.T, w *world) {
		res := w.api(bot, "files.getUploadURLExternal", args{"filename": "a.txt", "length": 5})
		form := "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\n\r\nhello\r\n--b--\r\n\r\n--b--\r\n" // as slack-go, closed twice
		if put := w.do(http.MethodPost, res["upload_url"].(string), bot, "multipart/form-data; boundary=b", []byte(form), nil); put.status != http.StatusOK {
			t.Fatalf("upload = %d %s", put.status, put.raw)
		}
		w.api(bot, "files.completeUploadExternal", args{"files": []any{args{"id": res["file_id"]}}, "channel_id": general})
		w.want("file", w.api(bot, "files.info", args{"file": res["file_id"]}), args{"file.size": 5})
	})
	in(t, "what is wrong is refused", slack.Config{}, func(t *testing.T, w *world) {
		w.refused(bot, "files.getUploadURLExternal", args{"filename": "a"}, "invalid_arguments")
		w.refused(bot, "files.getUploadURLExternal", args{"filename": "a", "length": 0}, "invalid_arguments")
		w.refused(bot, "files.getUploadURLExternal", args{"length": 1}, "invalid_arguments")
		w.refused(bot, "files.getUploadURLExternal", args{"filename": "a", "length": 1 << 30}, "file_upload_size_restricted")
		res := w.api(bot, "files.getUploadURLExternal", args{"filename": "a", "length": 5})
		complete := args{"files": []any{args{"id": res["file_id"]}}, "channel_id": general}
		w.refused(bot, "files.completeUploadExternal", complete, "file_not_found")
		if put := w.do(http.MethodPost, res["upload_url"].(string), "", "", []byte("much more"), nil); put.status != http.StatusBadRequest {
			t.Errorf("another length = %d", put.status)
		}
		id := upload(w, bot, "a", "x")
		w.refused(bot, "files.completeUploadExternal", args{"files": []any{}, "channel_id": general}, "invalid_arguments")
		w.refused(bot, "files.completeUploadExternal", args{"files": []any{args{"id": id}}, "channel_id": "C9"}, "channel_not_found")
		w.refused(member, "files.completeUploadExternal", args{"files": []any{args{"id": id}}, "channel_id": general}, "file_not_found")
	})
	in(t, "a file for a deleted thread is posted beside it", slack.Config{}, func(_ *testing.T, w *world) {
		s := w.connect()
		root := w.post(member, general, "", "root")
		s.event()
		w.api(member, "chat.delete", args{"channel": general, "ts": root})
		s.event()
		id := upload(w, bot, "a", "x")
		w.api(bot, "files.completeUploadExternal", args{"files": []any{args{"id": id}}, "channel_id": general, "thread_ts": root})
		w.want("event", s.event(), args{"subtype": "file_share", "thread_ts": nil})
	})
}
