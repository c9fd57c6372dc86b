// The page of the local Slack. It acts through Slack's own methods with the chosen person's token, and through /local/ for
// what Slack has no method for. Text from messages is only ever put into text nodes.
//
// For browser tests: #person, #channels button[data-channel], #text + #composer .send, #thread-text + #thread-composer .send,
// .message[data-ts] with .name, .content, button.block[data-action], .replies and .tools [data-tool], #thread-pane, #modal, #status.
'use strict';

const $ = (id) => document.getElementById(id);
const state = { token: localStorage.getItem('person') || 'xoxp-local-member', channels: [], channel: null, thread: null, people: {}, me: '' };
const emoji = { eyes: '👀', white_check_mark: '✅', x: '❌', '+1': '👍', heart: '❤️', tada: '🎉' };
const BOT = 'U0FLAUDE';

function el(tag, props, ...children) {
  const node = document.createElement(tag);
  for (const [k, v] of Object.entries(props || {})) {
    if (k === 'class') node.className = v;
    else if (k.startsWith('on')) node.addEventListener(k.slice(2), v);
    else if (k === 'data') Object.assign(node.dataset, v);
    else if (v !== undefined && v !== null) node.setAttribute(k, v);
  }
  node.append(...children.flat(Infinity).filter((c) => c !== null && c !== undefined));
  return node;
}

async function call(path, args) {
  const form = new URLSearchParams();
  for (const [k, v] of Object.entries(args || {})) form.set(k, typeof v === 'object' ? JSON.stringify(v) : v);
  const res = await fetch('/api/' + path, { method: 'POST', body: form, headers: { Authorization: 'Bearer ' + state.token } });
  return answer(await res.json());
}

async function local(method, args) {
  const res = await fetch('/local/' + method, {
    method: 'POST', body: JSON.stringify(args || {}),
    headers: { Authorization: 'Bearer ' + state.token, 'Content-Type': 'application/json' },
  });
  return answer(await res.json());
}

function answer(body) {
  if (!body.ok && body.error !== 'thread_not_found') toast('Slack says: ' + body.error);
  return body;
}

function toast(text) {
  const t = $('toast');
  t.textContent = text;
  t.classList.add('on');
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => t.classList.remove('on'), 4000);
}

// ── text ──

const entities = { '&lt;': '<', '&gt;': '>', '&amp;': '&' };
const decode = (s) => s.replace(/&(lt|gt|amp);/g, (m) => entities[m]);

function link(url, label) {
  if (!/^(https?|mailto):/i.test(url)) return document.createTextNode(label);
  return el('a', { href: url, target: '_blank', rel: 'noreferrer noopener' }, label);
}

// token is what stands between < and >: a person, a channel, a date, a link.
function token(inner) {
  const [what, label] = inner.split(/\|(.*)/s);
  if (what[0] === '@') return el('span', { class: 'mention' }, '@' + personName(what.slice(1)));
  if (what[0] === '#') return document.createTextNode('#' + (label || what.slice(1)));
  if (what.startsWith('!date^')) {
    const at = new Date(Number(what.split('^')[1]) * 1000);
    return document.createTextNode(at.toLocaleString([], { month: 'short', day: 'numeric', hour: '2-digit', minute: '2-digit' }));
  }
  if (what[0] === '!') return el('span', { class: 'mention' }, label || '@' + what.slice(1));
  return link(decode(what), decode(label || what));
}

// inline renders a line by rules: each is a pattern and what becomes of a match.
function inline(text, rules) {
  const out = [];
  while (text) {
    let best = null;
    for (const [pattern, make] of rules) {
      const m = pattern.exec(text);
      if (m && (!best || m.index < best.m.index)) best = { m, make };
    }
    if (!best) break;
    if (best.m.index) out.push(document.createTextNode(decode(text.slice(0, best.m.index))));
    out.push(best.make(best.m));
    text = text.slice(best.m.index + best.m[0].length);
  }
  if (text) out.push(document.createTextNode(decode(text)));
  return out;
}

const mrkdwnRules = [
  [/`([^`\n]+)`/, (m) => el('code', {}, decode(m[1]))],
  [/<([^<>\n]+)>/, (m) => token(m[1])],
  [/(?<![\w*])\*(\S(?:[^*\n]*\S)?)\*(?![\w*])/, (m) => el('strong', {}, inline(m[1], mrkdwnRules))],
  [/(?<![\w_])_(\S(?:[^_\n]*\S)?)_(?![\w_])/, (m) => el('em', {}, inline(m[1], mrkdwnRules))],
  [/(?<![\w~])~(\S(?:[^~\n]*\S)?)~(?![\w~])/, (m) => el('s', {}, inline(m[1], mrkdwnRules))],
];

const markdownRules = [
  [/(`+)([\s\S]*?[^`])\1(?!`)/, (m) => el('code', {}, decode(m[2]))],
  [/!?\[([^\]\n]*)\]\(([^()\s]+)\)/, (m) => link(m[2], m[1] || m[2])],
  [/<((?:https?:|[@#!])[^<>\n]+)>/, (m) => token(m[1])],
  [/\bhttps?:\/\/[^\s<>)]+/, (m) => link(m[0], m[0])],
  [/\*\*(\S(?:[\s\S]*?\S)?)\*\*/, (m) => el('strong', {}, inline(m[1], markdownRules))],
  [/(?<![\w*])\*(\S(?:[^*]*?\S)?)\*(?![\w*])/, (m) => el('em', {}, inline(m[1], markdownRules))],
  [/(?<![\w_])_(\S(?:[^_]*?\S)?)_(?![\w_])/, (m) => el('em', {}, inline(m[1], markdownRules))],
  [/~~(\S(?:[\s\S]*?\S)?)~~/, (m) => el('s', {}, inline(m[1], markdownRules))],
];

function mrkdwn(text) {
  const out = [];
  for (const [i, part] of text.split('```').entries()) {
    if (i % 2) { out.push(el('pre', {}, el('code', {}, decode(part.replace(/^\n|\n$/g, ''))))); continue; }
    for (const group of part.split(/\n(?=&gt;|>)|(?<=^(?:&gt;|>)[^\n]*)\n(?!&gt;|>)/m)) {
      if (!group.trim()) continue;
      if (/^(&gt;|>)/.test(group)) out.push(el('blockquote', {}, inline(group.replace(/^(&gt;|>) ?/gm, ''), mrkdwnRules)));
      else out.push(el('p', {}, inline(group, mrkdwnRules)));
    }
  }
  return out;
}

// markdown renders what Slack's markdown block does: fences, headings, lists, tasks, quotes, tables, paragraphs.
function markdown(text) {
  const lines = text.split('\n');
  const out = [];
  const starts = /^( {0,3}(```|~~~)|#{1,6} |\s*([-*+]|\d+[.)]) |>|\|)/;
  let i = 0;
  while (i < lines.length) {
    const line = lines[i];
    const fence = line.match(/^ {0,3}(```+|~~~+)(.*)$/);
    if (fence) {
      const code = [];
      for (i++; i < lines.length && !lines[i].trim().startsWith(fence[1]); i++) code.push(lines[i]);
      i++;
      out.push(el('pre', {}, el('code', {}, code.join('\n'))));
      continue;
    }
    const heading = line.match(/^(#{1,6}) (.*)$/);
    if (heading) { out.push(el('h3', {}, inline(heading[2], markdownRules))); i++; continue; }
    if (/^\s*([-*+]|\d+[.)]) /.test(line)) { i = list(lines, i, out); continue; }
    if (/^>/.test(line)) {
      const quote = [];
      for (; i < lines.length && /^>/.test(lines[i]); i++) quote.push(lines[i].replace(/^> ?/, ''));
      out.push(el('blockquote', {}, inline(quote.join('\n'), markdownRules)));
      continue;
    }
    if (/^\|.*\|\s*$/.test(line) && /^\|[\s:|-]+\|\s*$/.test(lines[i + 1] || '')) { i = table(lines, i, out); continue; }
    if (/^(---+|\*\*\*+)\s*$/.test(line)) { out.push(el('hr')); i++; continue; }
    if (!line.trim()) { i++; continue; }
    const para = [line];
    for (i++; i < lines.length && lines[i].trim() && !starts.test(lines[i]); i++) para.push(lines[i]);
    out.push(el('p', {}, inline(para.join('\n'), markdownRules)));
  }
  return out;
}

function list(lines, i, out) {
  const item = /^(\s*)([-*+]|\d+[.)]) (.*)$/;
  const stack = [];
  for (; i < lines.length; i++) {
    const m = lines[i].match(item);
    if (!m) {
      if (!/^\s+\S/.test(lines[i]) || !stack.length) break;
      stack.at(-1).node.lastChild.append(' ', ...inline(lines[i].trim(), markdownRules));
      continue;
    }
    const depth = m[1].length;
    while (stack.length && stack.at(-1).depth > depth) stack.pop();
    if (!stack.length || stack.at(-1).depth < depth) {
      const node = el(/\d/.test(m[2]) ? 'ol' : 'ul', /\d/.test(m[2]) ? { start: parseInt(m[2], 10) } : {});
      (stack.length ? stack.at(-1).node.lastChild : { append: (n) => out.push(n) }).append(node);
      stack.push({ depth, node });
    }
    const task = m[3].match(/^\[([ xX])\] (.*)$/);
    stack.at(-1).node.append(el('li', {}, inline(task ? (task[1] === ' ' ? '☐ ' : '☑ ') + task[2] : m[3], markdownRules)));
  }
  return i;
}

function table(lines, i, out) {
  const cells = (l) => l.trim().slice(1, -1).split(/(?<!\\)\|/).map((c) => c.trim().replace(/\\\|/g, '|'));
  const rows = [el('tr', {}, cells(lines[i]).map((c) => el('th', {}, inline(c, markdownRules))))];
  for (i += 2; i < lines.length && /^\|/.test(lines[i]); i++) rows.push(el('tr', {}, cells(lines[i]).map((c) => el('td', {}, inline(c, markdownRules)))));
  out.push(el('table', {}, rows));
  return i;
}

const textObject = (t) => (t.type === 'mrkdwn' ? mrkdwn(t.text) : [el('p', {}, decode(t.text))]);

// ── blocks ──

function block(b, m) {
  switch (b.type) {
    case 'markdown': return el('div', {}, markdown(b.text));
    case 'section': return el('div', { class: 'section' },
      el('div', {}, b.text ? textObject(b.text) : [], (b.fields || []).map(textObject)), b.accessory ? element(b.accessory, m) : null);
    case 'header': return el('h2', {}, b.text.text);
    case 'divider': return el('hr');
    case 'context': return el('div', { class: 'context' }, b.elements.map((e) => (e.type === 'image' ? picture(e) : inline(e.text, mrkdwnRules))));
    case 'actions': return el('div', { class: 'actions' }, b.elements.map((e) => element(e, m)));
    case 'image': return picture(b);
    case 'table': return el('table', {}, b.rows.map((r) => el('tr', {}, r.map((c) => el('td', {}, c.text || '')))));
    case 'rich_text': return el('p', {}, richText(b));
    case 'plan': return el('div', {}, el('strong', {}, b.title || ''), (b.tasks || []).map((t) => block(t, m)));
    case 'task_card': return el('p', {}, ({ complete: '☑ ', in_progress: '▶ ', error: '✕ ' }[b.status] || '☐ ') + (b.title || ''));
    case 'input': return el('label', {}, b.label.text, el('input', { name: b.block_id + ' ' + (b.element.action_id || ''), value: b.element.initial_value || '' }));
    default: return el('p', { class: 'note' }, '[' + b.type + ']');
  }
}

const picture = (e) => el('img', { src: e.image_url, alt: e.alt_text || '' });

function richText(b) {
  return (b.elements || []).flatMap((s) => (s.elements || []).map((e) => {
    if (e.type === 'user') return el('span', { class: 'mention' }, '@' + personName(e.user_id));
    if (e.type === 'link') return link(e.url, e.text || e.url);
    return document.createTextNode(decode(e.text || ''));
  }));
}

function element(e, m) {
  if (e.type !== 'button') return el('span', { class: 'note' }, '[' + e.type + ']');
  return el('button', {
    type: 'button', class: 'block ' + (e.style || ''), data: { action: e.action_id },
    onclick: async (ev) => {
      if (e.url) { window.open(e.url, '_blank', 'noreferrer'); return; }
      if (e.confirm && !window.confirm(e.confirm.title.text + '\n\n' + e.confirm.text.text)) return;
      ev.target.disabled = true;
      const where = m.view_id ? { view_id: m.view_id } : { channel: state.channel, ts: m.ts };
      await local('click', { ...where, action_id: e.action_id, value: e.value || '' });
      ev.target.disabled = false;
      refresh();
    },
  }, e.text.text);
}

// ── messages ──

const personName = (id) => (state.people[id] ? state.people[id].profile.display_name : id);
const color = (id) => (id === BOT ? '#c15f3c' : `hsl(${[...id].reduce((h, c) => (h * 31 + c.charCodeAt(0)) % 360, 7)} 42% 42%)`);

function message(m, inThread) {
  const bot = !!m.bot_id;
  const name = personName(m.user);
  const content = el('div', { class: 'content' });
  if (m.blocks && m.blocks.length) content.append(...m.blocks.map((b) => block(b, m)));
  else if (m.text) content.append(...mrkdwn(m.text));
  for (const f of m.files || []) content.append(fileCard(f));
  const time = new Date(Number(m.ts) * 1000);
  const node = el('article', { class: 'message' + (m.is_ephemeral ? ' private' : ''), data: { ts: m.ts, user: m.user } },
    el('div', { class: 'avatar', style: '', 'aria-hidden': 'true' }, bot ? '✳' : name[0].toUpperCase()),
    el('div', { class: 'body' },
      m.is_ephemeral ? el('div', { class: 'note' }, 'Only visible to you') : null,
      el('div', { class: 'head' }, el('span', { class: 'name' }, name), bot ? el('span', { class: 'app' }, 'APP') : null,
        el('time', { class: 'time', datetime: time.toISOString() }, time.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' })),
        m.edited ? el('span', { class: 'note' }, '(edited)') : null),
      content, reactions(m), !inThread && m.reply_count ? el('button', { class: 'replies', onclick: () => openThread(m.ts) },
        m.reply_count + (m.reply_count === 1 ? ' reply' : ' replies')) : null));
  node.querySelector('.avatar').style.background = color(m.user);
  if (!m.is_ephemeral) node.append(tools(m, inThread));
  return node;
}

function reactions(m) {
  if (!m.reactions || !m.reactions.length) return null;
  return el('div', { class: 'reactions' }, m.reactions.map((r) => el('button', {
    class: r.users.includes(state.me) ? 'mine' : '', title: r.users.map(personName).join(', ') + ': :' + r.name + ':',
    onclick: () => react(m, r.name, r.users.includes(state.me)),
  }, (emoji[r.name] || ':' + r.name + ':') + ' ' + r.count)));
}

async function react(m, name, mine) {
  await call(mine ? 'reactions.remove' : 'reactions.add', { channel: state.channel, timestamp: m.ts, name });
  refresh();
}

function tools(m, inThread) {
  const tool = (name, label, title, run) => el('button', { data: { tool: name }, title, 'aria-label': title, onclick: run }, label);
  return el('div', { class: 'tools' },
    tool('react', '👍', 'React', () => react(m, '+1', (m.reactions || []).some((r) => r.name === '+1' && r.users.includes(state.me)))),
    inThread ? null : tool('thread', '💬', 'Reply in thread', () => openThread(m.thread_ts || m.ts)),
    tool('manage', '⚙', 'Manage this session', () => local('shortcut', { channel: state.channel, ts: m.ts, callback_id: 'manage_session' })),
    m.user === state.me ? tool('edit', '✎', 'Edit', () => edit(m)) : null,
    m.user === state.me ? tool('delete', '🗑', 'Delete', async () => { await call('chat.delete', { channel: state.channel, ts: m.ts }); refresh(); }) : null);
}

async function edit(m) {
  const text = window.prompt('Edit the message', readable(m.text));
  if (text !== null) { await call('chat.update', { channel: state.channel, ts: m.ts, text: typed(text) }); refresh(); }
}

function fileCard(f) {
  const url = f.url_private.replace(/^https?:\/\/[^/]+/, '') + '?token=' + encodeURIComponent(state.token);
  const size = f.size > 1048576 ? (f.size / 1048576).toFixed(1) + ' MB' : Math.ceil(f.size / 1024) + ' KB';
  if (/^image\//.test(f.mimetype)) return el('a', { class: 'file', href: url, target: '_blank' }, el('img', { src: url, alt: f.name }));
  return el('a', { class: 'file', href: url + '&download=1', download: f.name }, '📄 ', f.name + ' · ' + size);
}

// typed turns @flaude and @names into Slack's form.
function typed(text) {
  let out = text.replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;').replace(/@flaude(bot)?\b/gi, '<@' + BOT + '>');
  for (const p of Object.values(state.people)) out = out.replaceAll('@' + p.profile.display_name, '<@' + p.id + '>');
  return out;
}
const readable = (text) => decode(text.replace(/<@(\w+)>/g, (_, id) => '@' + (id === BOT ? 'flaude' : personName(id))));

// ── views of channel, thread and modal ──

let drawn = {};
function draw(box, key, nodes, data) {
  const json = JSON.stringify(data);
  if (drawn[key] === json) return;
  drawn[key] = json;
  const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 80;
  box.replaceChildren(...nodes());
  if (atEnd) box.scrollTop = box.scrollHeight;
}

async function refresh() {
  if (!state.channel) return;
  const seen = await local('seen', { channel: state.channel });
  if (!seen.ok) return;
  const all = [...seen.messages, ...seen.ephemeral].sort((a, b) => (a.ts < b.ts ? -1 : 1));
  draw($('messages'), 'channel', () => (all.length ? all.map((m) => message(m, false)) : [empty()]), [all, state.me]);
  showModal(seen.views);
  if (!state.thread) return;
  const thread = await local('seen', { channel: state.channel, thread_ts: state.thread });
  if (!thread.ok) return;
  const replies = [...thread.messages, ...thread.ephemeral].sort((a, b) => (a.ts < b.ts ? -1 : 1));
  draw($('thread'), 'thread', () => replies.map((m) => message(m, true)), [replies, state.me]);
  showStatus(thread.status);
}

const empty = () => el('p', { class: 'empty' }, 'Nothing has been said here. Mention @flaude to begin, for example: @flaude remember the number 7');

function showStatus(status) {
  const words = { processing: 'Working… ', active: 'Ready for a reply', suspended: 'Waits for you', closed: 'Session ended' };
  $('status').replaceChildren(words[status] || '');
  if (status === 'processing') $('status').append(el('button', { class: 'block', onclick: () => local('stop', { channel: state.channel, thread_ts: state.thread }) }, 'Stop'));
}

function showModal(views) {
  const dialog = $('modal');
  const v = views.at(-1);
  if (!v) { if (dialog.open) dialog.close(); drawn.modal = ''; return; }
  draw(dialog, 'modal', () => [
    el('h2', {}, v.title.text), ...v.blocks.map((b) => block(b, { view_id: v.id })),
    el('div', { class: 'actions' },
      el('button', { class: 'block', onclick: () => local('submit', { view_id: v.id, close: 'true' }).then(refresh) }, v.close ? v.close.text : 'Close'),
      v.submit ? el('button', { class: 'block primary', onclick: () => submit(v) }, v.submit.text) : null),
  ], v);
  if (!dialog.open) dialog.showModal();
}

async function submit(v) {
  const values = {};
  for (const input of $('modal').querySelectorAll('input[name]')) {
    const [blockId, actionId] = input.name.split(' ');
    values[blockId] = { [actionId]: { type: 'plain_text_input', value: input.value } };
  }
  await local('submit', { view_id: v.id, values });
  refresh();
}

function openThread(ts) {
  state.thread = ts;
  drawn.thread = '';
  $('thread-pane').hidden = false;
  refresh().then(() => $('thread-text').focus());
}

function closeThread() {
  state.thread = null;
  $('thread-pane').hidden = true;
}

async function loadChannels() {
  const [list, who, users] = await Promise.all([call('conversations.list', { types: 'public_channel,im' }), call('auth.test'), call('users.list')]);
  state.me = who.user_id;
  state.people = Object.fromEntries((users.members || []).map((p) => [p.id, p]));
  state.channels = list.channels || [];
  if (!state.channels.some((c) => c.id === state.channel)) state.channel = state.channels[0] && state.channels[0].id;
  drawChannels();
  drawn = {};
  refresh();
}

function drawChannels() {
  $('channels').replaceChildren(...state.channels.map((c) => el('li', {}, el('button', {
    data: { channel: c.id }, 'aria-current': String(c.id === state.channel),
    onclick: () => { state.channel = c.id; closeThread(); drawn = {}; drawChannels(); refresh(); },
  }, channelName(c)))));
  const current = state.channels.find((c) => c.id === state.channel);
  $('channel-title').textContent = current ? channelName(current) : '';
  $('text').placeholder = current ? 'Message ' + channelName(current) : '';
}

const channelName = (c) => (c.is_im ? '✳ ' + personName(c.user) : '# ' + c.name);

async function sendFile(file, thread, comment) {
  const up = await call('files.getUploadURLExternal', { filename: file.name, length: file.size });
  if (!up.ok) return;
  await fetch(up.upload_url.replace(/^https?:\/\/[^/]+/, ''), { method: 'POST', body: file });
  const args = { files: [{ id: up.file_id, title: file.name }], channel_id: state.channel, initial_comment: comment };
  if (thread) args.thread_ts = thread;
  await call('files.completeUploadExternal', args);
}

function composer(form, box, thread) {
  const input = form.querySelector('.file');
  const attached = form.querySelector('.attached');
  form.querySelector('.attach').onclick = () => input.click();
  input.onchange = () => { attached.textContent = input.files[0] ? '📎 ' + input.files[0].name : ''; };
  box.addEventListener('input', () => { box.style.height = 'auto'; box.style.height = box.scrollHeight + 'px'; });
  box.addEventListener('keydown', (e) => { if (e.key === 'Enter' && !e.shiftKey && !e.isComposing) { e.preventDefault(); form.requestSubmit(); } });
  form.addEventListener('submit', async (e) => {
    e.preventDefault();
    const text = box.value.trim();
    const file = input.files[0];
    if (!text && !file) return;
    box.value = '';
    box.style.height = 'auto';
    const command = text.match(/^(\/\w+)\s*([\s\S]*)$/);
    if (command && !file) {
      if (thread()) { toast(command[1] + ' is not supported in threads. Sorry!'); return; }
      await local('command', { channel: state.channel, command: command[1], text: typed(command[2]) });
    } else if (file) {
      await sendFile(file, thread(), typed(text));
      input.value = '';
      attached.textContent = '';
    } else {
      const args = { channel: state.channel, text: typed(text) };
      if (thread()) args.thread_ts = thread();
      const sent = await call('chat.postMessage', args);
      if (sent.ok && !thread() && args.text.includes('<@' + BOT + '>')) openThread(sent.ts);
    }
    await refresh();
    const pane = thread() ? $('thread') : $('messages');
    pane.scrollTop = pane.scrollHeight;
  });
}

function watch() {
  let due = null;
  const events = new EventSource('/local/events');
  events.onmessage = () => { if (!due) due = setTimeout(() => { due = null; refresh(); }, 120); };
}

$('person').value = state.token;
$('person').onchange = () => { state.token = $('person').value; localStorage.setItem('person', state.token); closeThread(); loadChannels(); };
$('close-thread').onclick = closeThread;
$('modal').addEventListener('cancel', (e) => e.preventDefault());
composer($('composer'), $('text'), () => null);
composer($('thread-composer'), $('thread-text'), () => state.thread);
fetch('/local/about').then((r) => r.json()).then((a) => { $('about').textContent = a.agent ? '· agent: ' + a.agent + '. ' + (a.note || '') : ''; });
loadChannels();
watch();
