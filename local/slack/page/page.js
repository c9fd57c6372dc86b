// The page of the local Slack. It acts through Slack's own methods with the chosen person's token, and through /local/ for
// what Slack has no method for.
//
// For browser tests: #person, #channels button[data-channel], #text + #composer .send, #thread-text + #thread-composer .send,
// .message[data-ts] with .name, .content, button.block[data-action], .replies and .tools [data-tool], #thread-pane, #modal, #status.
'use strict';

const $ = (id) => document.getElementById(id);
const BOT = 'U0FLAUDE';
const state = {
  token: localStorage.getItem('person') || 'xoxp-local-member', channels: [], channel: null, thread: null, people: {}, me: '',
  unread: new Set(), pending: new Set(), opened: new Set(), hidden: new Set(), drafts: {}, editing: null, errors: {},
};
const personName = (id) => (state.people[id] ? state.people[id].profile.display_name : id === 'USLACKBOT' ? 'slackbot' : id || 'someone');
names.person = (id) => (id === BOT ? 'flaude' : personName(id));
names.channel = (id) => (state.channels.find((c) => c.id === id) || { name: id }).name;

// ── calls ──

async function send(path, options) {
  try {
    const res = await fetch(path, { method: 'POST', ...options, headers: { Authorization: 'Bearer ' + state.token, ...(options.headers || {}) } });
    return await res.json();
  } catch {
    return { ok: false, error: 'no answer from the server' };
  }
}

function call(method, args) {
  const form = new URLSearchParams();
  for (const [k, v] of Object.entries(args || {})) form.set(k, typeof v === 'object' ? JSON.stringify(v) : v);
  return send('/api/' + method, { body: form }).then(answer);
}

const local = (verb, args) => send('/local/' + verb, { body: JSON.stringify(args || {}), headers: { 'Content-Type': 'application/json' } }).then(answer);

function answer(body) {
  const more = ((body.response_metadata || {}).messages || [])[0];
  if (!body.ok) toast(body.error === 'thread_not_found' ? 'That message is gone.' : 'Slack says: ' + (more || body.error));
  return body;
}

function toast(words) {
  const t = $('toast');
  t.textContent = words;
  t.classList.add('on');
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => t.classList.remove('on'), 5000);
}

// ── blocks ──

const textObject = (t) => (t.type === 'mrkdwn' ? mrkdwn(t.text) : [el('p', {}, t.text.replace(/:([a-z0-9_+-]+):/g, (m, name) => emoji[name] || m))]);
const long = (...nodes) => el('div', { class: 'long' }, nodes);

function block(b, m) {
  switch (b.type) {
    case 'markdown': return long(markdown(b.text));
    case 'section': return el('div', { class: 'section' },
      el('div', { class: 'words' }, b.text ? long(textObject(b.text)) : null, b.fields ? el('div', { class: 'fields' }, b.fields.map((f) => el('div', {}, textObject(f)))) : null),
      b.accessory ? element(b.accessory, m, b) : null);
    case 'header': return el('h2', {}, textObject(b.text));
    case 'divider': return el('hr');
    case 'context': return el('div', { class: 'context' }, b.elements.map((e) => (e.type === 'image' ? picture(e) : el('span', {}, e.type === 'mrkdwn' ? inline(e.text, mrkdwnRules) : e.text))));
    case 'actions': return el('div', { class: 'actions' }, b.elements.map((e) => element(e, m, b)));
    case 'image': return el('figure', {}, b.title ? el('figcaption', {}, b.title.text) : null, picture(b));
    case 'table': return el('div', { class: 'table', tabindex: 0 }, el('table', {}, b.rows.map((r) => el('tr', {}, r.map((c) => el('td', {}, c.type === 'rich_text' ? richText(c) : String(c.text || '')))))));
    case 'rich_text':
      if (b.elements.every((s) => s.type === 'rich_text_preformatted')) return long(el('pre', { tabindex: 0 }, el('code', {}, richText(b))));
      return long(el('p', {}, richText(b)));
    case 'plan': return el('div', {}, el('p', {}, el('strong', {}, b.title || '')), (b.tasks || []).map((t) => block(t, m)));
    case 'task_card': return el('p', { class: 'card' }, ({ complete: '☑ ', in_progress: '▶ ', error: '✕ ' }[b.status] || '☐ ') + (b.title || ''));
    case 'input': return input(b, m);
    default: return el('p', { class: 'note' }, '[' + b.type + ']');
  }
}

function richText(b) {
  return (b.elements || []).flatMap((s) => (s.elements || []).map((e) => {
    if (e.type === 'user') return token('@' + e.user_id);
    if (e.type === 'link') return link(e.url, e.text || e.url);
    if (e.type === 'emoji') return text(emoji[e.name] || ':' + e.name + ':');
    if (Array.isArray(e.elements)) return el('span', {}, richText({ elements: [e] }));
    return text(e.text || '');
  }));
}

// input is a field of a modal. What can be filled in is a [data-field], whatever it consists of.
function input(b, m) {
  const e = b.element;
  const error = (state.errors[m.view_id] || {})[b.block_id];
  const props = { data: { field: b.block_id + ' ' + e.action_id, kind: e.type }, 'aria-invalid': error ? 'true' : null, 'aria-required': b.optional ? null : 'true', placeholder: e.placeholder ? e.placeholder.text : null };
  const several = e.type === 'checkboxes';
  return el(several ? 'fieldset' : 'label', { class: 'field' }, el(several ? 'legend' : 'span', {}, b.label.text, b.optional ? el('span', { class: 'note' }, ' (optional)') : null), control(e, props),
    b.hint ? el('span', { class: 'note' }, b.hint.text) : null, error ? el('span', { class: 'error' }, error) : null);
}

// select is a choice that is told at once, outside of a form.
function select(e, m) {
  const where = m.view_id ? { view_id: m.view_id } : { channel: state.channel, ts: m.ts };
  const what = e.placeholder ? e.placeholder.text : 'Choose…';
  const chosen = async (event) => {
    if (!event.target.value) return;
    await local('click', { ...where, action_id: e.action_id, value: event.target.value });
    refresh();
  };
  return el('select', { 'aria-label': what, data: { action: e.action_id }, onchange: chosen },
    el('option', { value: '' }, what), (e.options || []).map((o) => el('option', { value: o.value }, o.text.text)));
}

// control is what is filled in: text, or what is chosen of some options.
function control(e, props) {
  const choose = (all, chosen, many) => el('select', { ...props, multiple: many ? true : null, size: many ? Math.min(Math.max(all.length, 2), 5) : null },
    many || chosen.length ? null : el('option', { value: '' }, props.placeholder || 'Choose…'), all.map(([value, words]) => el('option', { value, selected: chosen.includes(value) }, words)));
  const options = (e.options || []).map((o) => [o.value, o.text.text]);
  const people = Object.values(state.people).filter((p) => !p.is_bot).map((p) => [p.id, p.profile.display_name]);
  switch (e.type) {
    case 'static_select': return choose(options, e.initial_option ? [e.initial_option.value] : []);
    case 'multi_static_select': return choose(options, (e.initial_options || []).map((o) => o.value), true);
    case 'users_select': return choose(people, e.initial_user ? [e.initial_user] : []);
    case 'multi_users_select': return choose(people, e.initial_users || [], true);
    case 'conversations_select': return choose(state.channels.filter((c) => !c.is_im).map((c) => [c.id, '#' + c.name]), e.initial_conversation ? [e.initial_conversation] : []);
    case 'checkboxes': {
      const on = (e.initial_options || []).map((o) => o.value);
      return el('div', { ...props, class: 'boxes' }, options.map(([value, words]) => el('label', {}, el('input', { type: 'checkbox', value, checked: on.includes(value) }), ' ', words)));
    }
    case 'number_input': {
      const field = el('input', { ...props, type: 'number', min: e.min_value, max: e.max_value, step: e.is_decimal_allowed ? 'any' : 1 });
      field.value = e.initial_value || '';
      return field;
    }
    case 'plain_text_input': {
      const field = el(e.multiline ? 'textarea' : 'input', { ...props, rows: e.multiline ? 4 : null, maxlength: e.max_length });
      field.value = e.initial_value || '';
      return field;
    }
    default: return el('span', { class: 'note' }, '[' + e.type + ']');
  }
}

// chosenIn and choose read and write the values of a field.
const chosenIn = (n) => (n.classList.contains('boxes') ? [...n.querySelectorAll('input:checked')].map((o) => o.value)
  : n.localName === 'select' ? [...n.selectedOptions].map((o) => o.value).filter(Boolean) : [n.value].filter(Boolean));

function fill(n, values) {
  if (n.classList.contains('boxes')) for (const o of n.querySelectorAll('input')) o.checked = values.includes(o.value);
  else if (n.multiple) for (const o of n.options) o.selected = values.includes(o.value);
  else n.value = values[0] || '';
}

// stated is a field as view.state has it.
function stated(n) {
  const type = n.dataset.kind;
  const values = chosenIn(n);
  const named = (value) => { const o = [...n.querySelectorAll('option, input')].find((x) => x.value === value); return { value, text: { type: 'plain_text', text: o ? (o.textContent || o.parentElement.textContent).trim() : value, emoji: true } }; };
  switch (type) {
    case 'static_select': return { type, selected_option: values.length ? named(values[0]) : null };
    case 'multi_static_select': case 'checkboxes': return { type, selected_options: values.map(named) };
    case 'users_select': return { type, selected_user: values[0] || null };
    case 'multi_users_select': return { type, selected_users: values };
    case 'conversations_select': return { type, selected_conversation: values[0] || null };
    default: return { type, value: values[0] || null };
  }
}

function element(e, m, b) {
  if (e.type === 'image') return picture(e);
  if (e.type === 'static_select') return select(e, m);
  if (e.type !== 'button') return el('span', { class: 'note' }, '[' + e.type + ']');
  const where = m.view_id ? { view_id: m.view_id } : { channel: state.channel, ts: m.ts };
  const key = [m.view_id || m.ts, b.block_id, e.action_id, e.value].join(' ');
  const busy = state.pending.has(key);
  const press = async () => {
    if (state.pending.has(key)) return;
    if (e.url) { open(e.url); return; }
    if (e.confirm && !await ask(e.confirm.title.text, e.confirm.text.text, e.confirm.confirm.text, e.confirm.deny.text)) return;
    state.pending.add(key);
    marked(key, true);
    await local('click', { ...where, action_id: e.action_id, value: e.value || '' });
    state.pending.delete(key);
    marked(key, false);
    refresh();
  };
  return el('button', {
    type: 'button', class: 'block ' + ({ primary: 'primary', danger: 'danger' }[e.style] || '') + (busy ? ' busy' : ''), disabled: busy, 'aria-busy': busy ? 'true' : null,
    data: { action: e.action_id, key }, onclick: press,
  }, e.text.text);
}

// marked shows on a button that its click is under way. The message may be drawn anew meanwhile.
function marked(key, busy) {
  for (const b of document.querySelectorAll('button[data-key]')) {
    if (b.dataset.key !== key) continue;
    b.disabled = busy;
    b.classList.toggle('busy', busy);
    if (busy) b.setAttribute('aria-busy', 'true'); else b.removeAttribute('aria-busy');
  }
}

function open(url) {
  const at = new URL(url, location.href);
  if (at.host === location.host && goTo(at)) return;
  if (/^https?:$/.test(at.protocol)) window.open(at.href, '_blank', 'noreferrer');
}

// ask is a question with two answers.
function ask(title, words, yes, no) {
  const d = $('ask');
  return new Promise((resolve) => {
    // Not by the close event: it comes late, and might answer the next question.
    const answer = (yes) => { d.close(); resolve(yes); };
    d.replaceChildren(el('h2', { id: 'ask-title' }, title), el('p', {}, words), el('div', { class: 'actions end' },
      el('button', { type: 'button', class: 'block', onclick: () => answer(false) }, no || 'Cancel'),
      el('button', { type: 'button', class: 'block danger', autofocus: true, onclick: () => answer(true) }, yes || 'Yes')));
    d.oncancel = () => resolve(false);
    d.showModal();
  });
}

// ── messages ──

const color = (id) => (id === BOT ? '#b4532f' : `hsl(${[...(id || '?')].reduce((h, c) => (h * 31 + c.charCodeAt(0)) % 360, 7)} 42% 40%)`);

function avatar(id, small) {
  const node = el('div', { class: 'avatar' + (small ? ' small' : ''), 'aria-hidden': 'true' }, id === BOT ? '✳' : (personName(id)[0] || '?').toUpperCase());
  node.style.background = color(id);
  return node;
}

const clock = (d) => d.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });

// attachment is a forwarded message, what is shown of a link, or the old form of blocks.
function attachment(a) {
  const whose = a.author_name || a.service_name || '';
  return el('blockquote', { class: 'attachment' }, whose ? el('p', {}, el('strong', {}, whose)) : null, a.pretext ? mrkdwn(a.pretext) : null,
    a.title ? el('p', {}, a.title_link ? link(a.title_link, a.title) : el('strong', {}, a.title)) : null, a.text ? mrkdwn(a.text) : null,
    (a.fields || []).map((f) => el('p', {}, el('strong', {}, f.title), ' ', f.value)), (a.blocks || []).map((b) => block(b, {})),
    a.from_url ? el('p', { class: 'note' }, link(a.from_url, a.footer || 'View message')) : a.footer ? el('p', { class: 'note' }, a.footer) : null);
}

// body is what a message says.
function body(m) {
  const content = el('div', { class: 'content' });
  const typedOnly = (m.blocks || []).every((b) => b.type === 'rich_text');
  if (m.blocks && m.blocks.length && !(typedOnly && m.text)) content.append(...m.blocks.map((b) => block(b, m)));
  else if (m.text) content.append(long(mrkdwn(m.text)));
  for (const f of m.files || []) content.append(fileCard(f));
  for (const a of m.attachments || []) content.append(attachment(a));
  return content;
}

function message(m, inThread, compact) {
  if (m.subtype === 'tombstone') {
    return el('article', { class: 'message gone', data: { ts: m.ts } }, el('div', { class: 'avatar', 'aria-hidden': 'true' }, icon('trash')),
      el('div', { class: 'body' }, el('div', { class: 'content note' }, m.text), inThread ? null : replyBar(m)));
  }
  const isBot = !!m.bot_id;
  const name = personName(m.user);
  const time = new Date(Number(m.ts) * 1000);
  const editing = state.editing === m.ts + inThread;
  return el('article', { class: 'message' + (m.is_ephemeral ? ' private' : '') + (compact ? ' compact' : ''), data: { ts: m.ts, user: m.user }, 'aria-label': name + ' at ' + clock(time) },
    compact ? el('time', { class: 'side time', datetime: time.toISOString() }, clock(time)) : avatar(m.user),
    el('div', { class: 'body' },
      m.is_ephemeral ? el('div', { class: 'note only' }, icon('eye'), 'Only visible to you', el('button', {
        type: 'button', class: 'bare dismiss', onclick: () => { state.hidden.add(m.ts); refresh(); } }, 'Dismiss')) : null,
      compact ? null : el('div', { class: 'head' }, el('span', { class: 'name' }, name), isBot ? el('span', { class: 'app' }, 'APP') : null,
        state.people[m.user] && state.people[m.user].is_stranger ? el('span', { class: 'app' }, 'EXTERNAL') : null,
        el('time', { class: 'time', datetime: time.toISOString(), title: time.toLocaleString() }, clock(time))),
      m.subtype === 'thread_broadcast' ? el('div', { class: 'note' }, inThread ? 'also sent to the channel' : 'replied to a thread') : null,
      editing ? editor(m) : body(m), m.edited && !editing ? el('span', { class: 'note' }, '(edited)') : null,
      reactions(m), inThread ? null : replyBar(m)),
    m.is_ephemeral || editing ? null : tools(m, inThread));
}

function replyBar(m) {
  if (!m.reply_count) return null;
  const last = m.latest_reply ? new Date(Number(m.latest_reply) * 1000) : null;
  return el('button', { type: 'button', class: 'replies', onclick: () => openThread(m.ts) }, (m.reply_users || []).slice(0, 4).map((u) => avatar(u, true)),
    el('span', {}, m.reply_count + (m.reply_count === 1 ? ' reply' : ' replies')), last ? el('span', { class: 'note' }, 'Last at ' + clock(last)) : null);
}

function reactions(m) {
  if (!m.reactions || !m.reactions.length) return null;
  return el('div', { class: 'reactions' }, m.reactions.map((r) => {
    const mine = r.users.includes(state.me);
    const label = r.users.map(personName).join(', ') + ' reacted with ' + r.name;
    return el('button', { type: 'button', class: mine ? 'mine' : '', title: label, 'aria-label': label, 'aria-pressed': String(mine), onclick: () => react(m, r.name) }, (emoji[r.name] || ':' + r.name + ':') + ' ' + r.count);
  }));
}

async function react(m, name) {
  const mine = (m.reactions || []).some((r) => r.name === name && r.users.includes(state.me));
  await call(mine ? 'reactions.remove' : 'reactions.add', { channel: state.channel, timestamp: m.ts, name });
  refresh();
}

function tools(m, inThread) {
  const tool = (name, title, run) => el('button', { type: 'button', class: 'bare', data: { tool: name }, title, 'aria-label': title, onclick: run }, icon(name));
  const quick = el('div', { class: 'quick', hidden: true }, ['+1', 'eyes', 'white_check_mark', 'tada', 'heart', 'octagonal_sign'].map((name) => el('button', {
    type: 'button', class: 'bare', title: name, 'aria-label': 'React with ' + name, onclick: () => { quick.hidden = true; react(m, name); } }, emoji[name])));
  const admin = (state.people[state.me] || {}).is_admin;
  return el('div', { class: 'tools' }, quick,
    tool('react', 'React', () => { quick.hidden = !quick.hidden; }),
    inThread ? null : tool('thread', 'Reply in thread', () => openThread(m.thread_ts || m.ts)),
    tool('manage', 'Manage session', () => local('shortcut', { channel: state.channel, ts: m.ts, callback_id: 'manage_session' }).then(refresh)),
    m.user === state.me ? tool('edit', 'Edit', () => { state.editing = m.ts + inThread; draw(); }) : null,
    m.user === state.me || admin ? tool('trash', 'Delete', () => remove(m)) : null);
}

async function remove(m) {
  if (!await ask('Delete this message?', readable(m.text).slice(0, 200), 'Delete', 'Cancel')) return;
  await call('chat.delete', { channel: state.channel, ts: m.ts });
  refresh();
}

function editor(m) {
  const box = el('textarea', { rows: 2, 'aria-label': 'Edit the message' });
  box.value = readable(m.text);
  const stop = () => { state.editing = null; draw(); };
  const save = async () => {
    if (!box.value.trim()) return;
    const res = await call('chat.update', { channel: state.channel, ts: m.ts, text: typed(box.value.trim()) });
    if (res.ok) { state.editing = null; refresh(); }
  };
  box.addEventListener('keydown', (e) => {
    if (e.key === 'Enter' && !e.shiftKey && !e.isComposing) { e.preventDefault(); save(); }
    if (e.key === 'Escape') { e.stopPropagation(); stop(); }
  });
  setTimeout(() => { grow(box); box.focus(); });
  return el('div', { class: 'editor' }, box, el('div', { class: 'actions end' },
    el('button', { type: 'button', class: 'block', onclick: stop }, 'Cancel'), el('button', { type: 'button', class: 'block primary', onclick: save }, 'Save')));
}

function fileCard(f) {
  const url = new URL(f.url_private).pathname + '?token=' + encodeURIComponent(state.token);
  const size = f.size >= 1048576 ? (f.size / 1048576).toFixed(1) + ' MB' : f.size >= 1024 ? Math.round(f.size / 1024) + ' KB' : f.size + ' bytes';
  const card = el('a', { class: 'file', href: url + '&download=1', download: f.name, 'aria-label': 'Download ' + f.name }, icon('file'),
    el('span', { class: 'file-name' }, f.title || f.name), el('span', { class: 'note' }, size), icon('down'));
  if (!/^image\/(png|jpeg|gif|webp)$/.test(f.mimetype)) return card;
  return el('div', {}, el('a', { href: url, target: '_blank', rel: 'noreferrer' }, el('img', { class: 'shot', src: url, alt: f.title || f.name, width: f.original_w, height: f.original_h })), card);
}

// typed turns what is typed into Slack's form: @flaude, @names and addresses, but not in code.
function typed(s) {
  return s.split(/(```[\s\S]*?```|`[^`\n]+`)/).map((part, i) => {
    const safe = part.replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;');
    if (i % 2) return safe;
    return safe.replace(/\bhttps?:\/\/[^\s<>|]*[^\s<>|.,;:!?)\]'"]/g, '<$&>').replace(/(^|[^\w<])@(\w+)/g, (m, before, name) => {
      if (/^flaude(bot)?$/i.test(name)) return before + '<@' + BOT + '>';
      const p = Object.values(state.people).find((x) => x.profile.display_name === name.toLowerCase());
      return p ? before + '<@' + p.id + '>' : m;
    });
  }).join('');
}
const readable = (s) => decode((s || '').replace(/<@(\w+)(\|[^>]*)?>/g, (_, id) => '@' + names.person(id)).replace(/<(https?:[^>|]+)(\|[^>]*)?>/g, '$1'));

// ── drawing ──

// seen is what was last seen; draw draws it. Only what changed is made anew, so that focus, selection and place stay.
const seen = { channel: null, thread: null };

function reconcile(box, items) {
  const end = box.scrollHeight - box.scrollTop - box.clientHeight < 60;
  const old = new Map([...box.children].map((n) => [n.dataset.id, n]));
  const active = box.contains(document.activeElement) ? document.activeElement : null;
  const last = box.lastElementChild ? box.lastElementChild.dataset.id : '';
  let before = box.firstElementChild;
  for (const { id, data, make } of items) {
    const json = JSON.stringify(data);
    let node = old.get(id);
    old.delete(id);
    if (node && node.json === json) {
      if (node === before) before = before.nextElementSibling; else box.insertBefore(node, before);
      continue;
    }
    const fresh = make();
    fresh.dataset.id = id;
    fresh.json = json;
    if (node) {
      const focused = active && node.contains(active) ? active : null;
      const inside = document.activeElement === box ? null : focused;
      if (node === before) before = before.nextElementSibling;
      node.replaceWith(fresh);
      if (inside) refocus(fresh, inside);
    } else box.insertBefore(fresh, before);
    clamp(fresh, id);
    for (const img of fresh.querySelectorAll('img')) img.addEventListener('load', () => { if (box.stick) box.scrollTop = box.scrollHeight; });
  }
  for (const node of old.values()) node.remove();
  const newest = box.lastElementChild ? box.lastElementChild.dataset.id : '';
  const jump = box.parentElement.querySelector('.jump');
  if (end || box.toEnd) { box.scrollTop = box.scrollHeight; box.toEnd = false; jump.hidden = true; } else if (newest !== last && last) jump.hidden = false;
  box.stick = box.scrollHeight - box.scrollTop - box.clientHeight < 60;
  box.lastHeight = box.scrollHeight;
}

// refocus finds in a node that was made anew what had the focus.
function refocus(node, was) {
  const same = [...node.querySelectorAll('button, a, textarea, [tabindex]')].find((n) => n.className === was.className && n.textContent === was.textContent && n.dataset.tool === was.dataset.tool);
  if (same) same.focus({ preventScroll: true });
}

// clamp folds text that is very long.
function clamp(node, id) {
  for (const [i, box] of node.querySelectorAll('.long').entries()) {
    if (box.offsetHeight <= 700) continue;
    const key = id + ' ' + i;
    const button = el('button', { type: 'button', class: 'more', onclick: () => { if (state.opened.has(key)) state.opened.delete(key); else state.opened.add(key); show(); } });
    const show = () => { const on = state.opened.has(key); box.classList.toggle('folded', !on); button.textContent = on ? 'Show less' : 'Show more'; button.setAttribute('aria-expanded', String(on)); };
    box.after(button);
    show();
  }
}

function dayOf(ts) {
  const d = new Date(Number(ts) * 1000);
  const days = Math.round((new Date().setHours(0, 0, 0, 0) - new Date(d).setHours(0, 0, 0, 0)) / 86400000);
  return days === 0 ? 'Today' : days === 1 ? 'Yesterday' : d.toLocaleDateString([], { weekday: 'long', month: 'long', day: 'numeric' });
}

function items(what, inThread) {
  const all = [...what.messages, ...what.ephemeral.filter((m) => !state.hidden.has(m.ts))].sort((a, b) => (a.ts < b.ts ? -1 : 1));
  const out = [];
  let day = '', before = null;
  for (const m of all) {
    if (!inThread && dayOf(m.ts) !== day) { day = dayOf(m.ts); const words = day; out.push({ id: 'day ' + m.ts.slice(0, 10), data: words, make: () => el('div', { class: 'day', role: 'separator' }, el('span', {}, words)) }); before = null; }
    const compact = !!before && before.user === m.user && !m.is_ephemeral && !before.is_ephemeral && !m.subtype && m.ts - before.ts < 300 && !before.reply_count && !(inThread && before === all[0]);
    out.push({ id: 'm' + m.ts, data: [m, compact, state.me, state.editing === m.ts + inThread, personName(m.user)], make: () => message(m, inThread, compact) });
    if (inThread && m === all[0] && all.length > 1) { const n = what.messages.length - 1; out.push({ id: 'count', data: n, make: () => el('div', { class: 'day left', role: 'separator' }, el('span', {}, n + (n === 1 ? ' reply' : ' replies'))) }); }
    before = m;
  }
  if (!out.length) out.push({ id: 'empty', data: inThread, make: empty });
  return out;
}

const empty = () => el('div', { class: 'empty' }, el('p', {}, el('strong', {}, 'Nothing has been said here.')), el('p', {}, 'Mention @flaude to begin, for example:'),
  el('button', { type: 'button', class: 'block', onclick: () => { $('text').value = '@flaude remember the number 7'; $('text').focus(); } }, '@flaude remember the number 7'));

function draw() {
  if (seen.channel) { reconcile($('messages'), items(seen.channel, false)); showSuggested(seen.channel.suggested); }
  if (seen.thread && state.thread) { reconcile($('thread'), items(seen.thread, true)); showStatus(seen.thread.status); $('thread-title').textContent = seen.thread.title || 'Thread'; }
}

// refresh looks at everything again; calls while it does so make it look once more.
let looking = null, again = false;
function refresh() {
  if (looking) { again = true; return looking; }
  looking = look().finally(() => { looking = null; });
  return looking;
}

async function look() {
  do {
    again = false;
    const { channel, thread, token: as } = state;
    if (!channel) return;
    const [a, b] = await Promise.all([local('seen', { channel }), thread ? local('seen', { channel, thread_ts: thread }) : null]);
    if (state.channel !== channel || state.token !== as) { again = true; continue; }
    if (a.ok) { seen.channel = a; showModal(a.views); }
    if (b && b.ok && state.thread === thread) {
      seen.thread = b;
      if (!b.messages.length && !b.ephemeral.length) { closeThread(); toast('That message is gone.'); }
    } else if (state.thread !== thread) again = true;
    draw();
  } while (again);
}

// showSuggested shows the prompts that an app offers in its direct messages. One that is pressed is sent.
function showSuggested(what) {
  const json = JSON.stringify(what || null);
  const box = $('suggested');
  if (box.json === json) return;
  box.json = json;
  box.hidden = !what;
  if (!what) { box.replaceChildren(); return; }
  box.setAttribute('aria-label', what.title || 'Suggested prompts');
  box.replaceChildren(what.title ? el('strong', {}, what.title) : '', ...what.prompts.map((p) => el('button', {
    type: 'button', class: 'block', onclick: () => call('chat.postMessage', { channel: state.channel, text: typed(p.message) }).then(refresh),
  }, p.title)));
}

function showStatus(status) {
  if ($('status').dataset.status === (status || '')) return;
  $('status').dataset.status = status || '';
  const words = { processing: 'Working…', active: 'Ready for a reply', suspended: 'Waits for you', closed: 'Session ended' };
  $('status').replaceChildren(words[status] || '');
  if (status === 'processing') $('status').append(' ', el('button', { type: 'button', class: 'block', onclick: () => local('stop', { channel: state.channel, thread_ts: state.thread }) }, 'Stop'));
}

// ── modals ──

// form is what a modal shows.
const form = (v, on) => el('form', { method: 'dialog', onsubmit: (e) => { e.preventDefault(); on.submit(); } },
  el('h2', { id: 'modal-title' }, v.title.text), el('div', { class: 'content' }, v.blocks.map((b) => block(b, { view_id: v.id }))),
  el('div', { class: 'actions end' }, el('button', { type: 'button', class: 'block', onclick: on.close }, v.close ? v.close.text : 'Close'),
    v.submit ? el('button', { type: 'submit', class: 'block primary' }, v.submit.text) : null));

function showModal(views) {
  const dialog = $('modal');
  const v = views.at(-1);
  if (!v) { if (dialog.open) dialog.close(); Object.assign(dialog, { json: '', view: null, filled: {} }); state.errors = {}; return; }
  const json = JSON.stringify([v, state.errors[v.id]]);
  if (dialog.json !== json) {
    dialog.filled = dialog.filled || {}; // view → field → values: what is filled in stays while another modal lies on it
    if (dialog.view) dialog.filled[dialog.view] = Object.fromEntries([...dialog.querySelectorAll('[data-field]')].map((n) => [n.dataset.field, chosenIn(n)]));
    const kept = dialog.filled[v.id] || {};
    const active = document.activeElement && dialog.contains(document.activeElement) ? document.activeElement : null;
    dialog.json = json;
    dialog.view = v.id;
    dialog.replaceChildren(form(v, { submit: () => submit(v), close: () => closeModal(v) }));
    for (const n of dialog.querySelectorAll('[data-field]')) if (kept[n.dataset.field] !== undefined) fill(n, kept[n.dataset.field]);
    if (active && dialog.open) refocus(dialog, active);
  }
  if (!dialog.open) dialog.showModal();
}

const closeModal = (v) => local('submit', { view_id: v.id, close: true }).then(refresh);

async function submit(v) {
  const values = {};
  for (const field of $('modal').querySelectorAll('[data-field]')) {
    const [blockId, actionId] = field.dataset.field.split(/ (?=[^ ]*$)/);
    values[blockId] = { ...values[blockId], [actionId]: stated(field) };
  }
  const button = $('modal').querySelector('[type=submit]');
  button.disabled = true;
  const res = await local('submit', { view_id: v.id, values });
  button.disabled = false;
  const said = res.response || {};
  state.errors = said.response_action === 'errors' ? { [v.id]: said.errors || {} } : {};
  refresh();
}

// ── where one is ──

const channelName = (c) => (c.is_im ? personName(c.user) : c.name);

function openThread(ts, focus = true) {
  keepDraft('thread');
  state.thread = ts;
  seen.thread = null;
  $('thread').replaceChildren();
  $('thread').toEnd = true;
  $('status').dataset.status = '';
  $('status').replaceChildren();
  $('thread-pane').hidden = false;
  $('app').classList.add('threaded');
  giveDraft('thread');
  address();
  return refresh().then(() => { if (focus) $('thread-text').focus(); });
}

function closeThread() {
  if (!state.thread) return;
  keepDraft('thread');
  const ts = state.thread;
  state.thread = null;
  state.editing = null;
  seen.thread = null;
  $('thread-pane').hidden = true;
  $('app').classList.remove('threaded');
  address();
  const bar = document.querySelector(`#messages .message[data-ts="${CSS.escape(ts)}"] .replies`);
  if (bar) bar.focus({ preventScroll: true }); else $('text').focus({ preventScroll: true });
}

function openChannel(id) {
  if (state.channel !== id) {
    keepDraft('channel');
    closeThread();
    state.channel = id;
    seen.channel = null;
    $('messages').replaceChildren();
    giveDraft('channel');
  }
  $('messages').toEnd = true;
  if ((state.channels.find((c) => c.id === id) || {}).is_im) local('open', { channel: id });
  state.unread.delete(id);
  drawer(false);
  drawChannels();
  address();
  return refresh();
}

// Drafts stay with their channel or thread.
const draftKey = (pane) => (pane === 'thread' ? state.channel + ':' + state.thread : state.channel);
const draftBox = (pane) => $(pane === 'thread' ? 'thread-text' : 'text');
const keepDraft = (pane) => { state.drafts[draftKey(pane)] = draftBox(pane).value; };
function giveDraft(pane) { draftBox(pane).value = state.drafts[draftKey(pane)] || ''; grow(draftBox(pane)); }

// The address names the channel and the thread, as Slack's links do.
function address() {
  if (!state.channel) return;
  const path = '/archives/' + state.channel + (state.thread ? '/p' + state.thread.replace('.', '') : '');
  if (location.pathname !== path) history.replaceState(null, '', path);
}

// goTo opens what a link of this Slack leads to, and tells whether it is one.
function goTo(at) {
  const m = at.pathname.match(/^\/archives\/(\w+)(?:\/p(\d+)(\d{6}))?$/);
  if (!m || !state.channels.some((c) => c.id === m[1])) return false;
  openChannel(m[1]);
  const thread = at.searchParams.get('thread_ts') || (m[2] && m[2] + '.' + m[3]);
  if (thread) openThread(thread);
  return true;
}

async function loadPeople() {
  const [list, who, users] = await Promise.all([call('conversations.list', { types: 'public_channel,im' }), call('auth.test'), call('users.list')]);
  if (!list.ok) return;
  state.me = who.user_id;
  state.people = Object.fromEntries((users.members || []).map((p) => [p.id, p]));
  state.channels = list.channels || [];
  state.unread.clear();
  if (goTo(new URL(location.href))) return;
  if (!state.channels.some((c) => c.id === state.channel)) state.channel = null;
  openChannel(state.channel || state.channels[0].id);
}

function drawChannels() {
  const part = (title, channels) => (channels.length ? [el('li', { class: 'part' }, title), channels.map((c) => el('li', {}, el('button', {
    type: 'button', data: { channel: c.id }, class: state.unread.has(c.id) ? 'unread' : '', 'aria-current': c.id === state.channel ? 'true' : null,
    onclick: () => openChannel(c.id).then(() => $('text').focus()),
  }, el('span', { class: 'sign', 'aria-hidden': 'true' }, c.is_im ? '✳' : '#'), channelName(c), state.unread.has(c.id) ? el('span', { class: 'dot', role: 'img', 'aria-label': 'unread' }) : null)))] : []);
  $('channels').replaceChildren(...part('Channels', state.channels.filter((c) => !c.is_im)).flat(), ...part('Direct messages', state.channels.filter((c) => c.is_im)).flat());
  const current = state.channels.find((c) => c.id === state.channel);
  $('channel-title').textContent = current ? (current.is_im ? '✳ ' : '# ') + channelName(current) : '';
  $('text').placeholder = current ? 'Message ' + (current.is_im ? '' : '#') + channelName(current) : '';
  document.title = (current ? channelName(current) + ' · ' : '') + 'local Slack';
}

function drawer(shown) {
  $('app').classList.toggle('drawer', shown);
  $('shade').hidden = !shown;
  $('menu').setAttribute('aria-expanded', String(shown));
}

// ── writing ──

async function sendFile(file, thread, comment) {
  const up = await call('files.getUploadURLExternal', { filename: file.name, length: file.size });
  if (!up.ok) return up;
  const put = await fetch(new URL(up.upload_url).pathname, { method: 'POST', body: file }).catch(() => ({ ok: false }));
  if (!put.ok) { toast('The file was not uploaded.'); return put; }
  const args = { files: [{ id: up.file_id, title: file.name }], channel_id: state.channel, initial_comment: comment };
  if (thread) args.thread_ts = thread;
  return call('files.completeUploadExternal', args);
}

function grow(box) {
  box.style.height = 'auto';
  if (box.value) box.style.height = Math.min(box.scrollHeight, 220) + 'px';
}

function composer(form, box, thread) {
  const chosen = form.querySelector('.file-input');
  const attached = form.querySelector('.attached');
  const showFile = () => {
    const file = chosen.files[0];
    attached.hidden = !file;
    attached.replaceChildren();
    if (file) attached.append(icon('file'), el('span', { class: 'file-name' }, file.name), el('button', { type: 'button', class: 'bare', 'aria-label': 'Remove the file', onclick: () => { chosen.value = ''; showFile(); box.focus(); } }, icon('close')));
  };
  form.querySelector('.attach').append(icon('plus'));
  form.querySelector('.attach').onclick = () => chosen.click();
  chosen.onchange = () => { showFile(); box.focus(); };
  for (const kind of ['dragover', 'drop']) form.addEventListener(kind, (e) => { e.preventDefault(); if (kind === 'drop' && e.dataTransfer.files.length) { chosen.files = e.dataTransfer.files; showFile(); } });
  box.addEventListener('paste', (e) => { if (e.clipboardData.files.length) { e.preventDefault(); chosen.files = e.clipboardData.files; showFile(); } });
  box.addEventListener('input', () => grow(box));
  box.addEventListener('keydown', (e) => {
    if (e.key === 'Enter' && !e.shiftKey && !e.isComposing) { e.preventDefault(); form.requestSubmit(); }
  });
  box.addEventListener('keypress', (e) => { if (e.key === 'Enter' && !e.shiftKey) e.preventDefault(); });
  form.addEventListener('submit', async (e) => {
    e.preventDefault();
    const words = box.value.trim();
    const file = chosen.files[0];
    if (!words && !file) return;
    const command = words.match(/^(\/\w+)\s*([\s\S]*)$/);
    if (command && thread()) { toast(command[1] + ' is not supported in threads. Sorry!'); return; }
    box.value = '';
    grow(box);
    const pane = thread() ? $('thread') : $('messages');
    pane.toEnd = true;
    const to = thread();
    let res;
    if (command && !file) res = await local('command', { channel: state.channel, command: command[1], text: typed(command[2]) });
    else if (file) {
      res = await sendFile(file, to, typed(words));
      if (res.ok) { chosen.value = ''; showFile(); }
    } else {
      const args = { channel: state.channel, text: typed(words) };
      if (to) args.thread_ts = to;
      res = await call('chat.postMessage', args);
      if (res.ok && !to && args.text.includes('<@' + BOT + '>')) openThread(res.ts);
    }
    if (!res.ok && !box.value) { box.value = words; grow(box); }
    pane.toEnd = true;
    await refresh();
  });
}

// ── start ──

function watch() {
  let due = null;
  const soon = () => { if (!due) due = setTimeout(() => { due = null; refresh(); }, 100); };
  const events = new EventSource('/local/events');
  events.onopen = () => { $('offline').hidden = true; soon(); };
  events.onerror = () => { $('offline').hidden = false; };
  events.onmessage = (e) => {
    if (e.data === state.channel || e.data === 'views') { soon(); return; }
    if (state.channels.some((c) => c.id === e.data) && !state.unread.has(e.data)) { state.unread.add(e.data); drawChannels(); }
  };
}

if (![...$('person').options].some((o) => o.value === state.token)) state.token = 'xoxp-local-member';
$('person').value = state.token;
$('person').onchange = () => {
  closeThread();
  state.token = $('person').value;
  localStorage.setItem('person', state.token);
  for (const k of ['pending', 'hidden']) state[k].clear();
  state.editing = null;
  seen.channel = null;
  $('messages').replaceChildren();
  loadPeople();
};
$('menu').append(icon('menu'));
$('menu').onclick = () => drawer(!$('app').classList.contains('drawer'));
$('shade').onclick = () => drawer(false);
$('close-thread').append(icon('close'));
$('close-thread').onclick = closeThread;
$('modal').addEventListener('cancel', (e) => {
  e.preventDefault();
  const v = seen.channel && seen.channel.views.at(-1);
  if (v) closeModal(v);
});
for (const jump of document.querySelectorAll('.jump')) jump.onclick = () => { const box = jump.previousElementSibling; box.scrollTop = box.scrollHeight; jump.hidden = true; };
for (const box of document.querySelectorAll('.messages')) {
  box.addEventListener('scroll', () => {
    if (box.scrollHeight === box.lastHeight) box.stick = box.scrollHeight - box.scrollTop - box.clientHeight < 60; // it was scrolled, and did not grow
    box.lastHeight = box.scrollHeight;
    if (box.stick) box.parentElement.querySelector('.jump').hidden = true;
  });
}
document.addEventListener('click', (e) => {
  const a = e.target.closest('a[href]');
  if (a && !a.classList.contains('file') && a.host === location.host && /^\/archives\//.test(a.pathname) && goTo(new URL(a.href))) e.preventDefault();
});
document.addEventListener('keydown', (e) => {
  if (e.key !== 'Escape' || document.querySelector('dialog[open]')) return;
  const quick = document.querySelector('.quick:not([hidden])');
  if (quick) quick.hidden = true;
  else if ($('app').classList.contains('drawer')) { drawer(false); $('menu').focus(); } else if (state.thread) closeThread();
});
composer($('composer'), $('text'), () => null);
composer($('thread-composer'), $('thread-text'), () => state.thread);
fetch('/local/about').then((r) => r.json()).then((a) => { $('about').textContent = a.agent ? '· agent: ' + a.agent + '. ' + (a.note || '') : ''; });
loadPeople();
watch();
