-- Copyright: (c) 2026, llmops.vllm maintainers
-- GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
-- SPDX-License-Identifier: GPL-3.0-or-later
--
-- Chooses a replica for each request: least connections among the replicas of the request's pool, as the agent's view
-- has them. All that the workers share lies in one dictionary, which a reload keeps and a restart empties:
--
--   view, gone, ver      the agent's document; ids that left it with requests in flight; a number that grows with each
--   w<row>, rver         "pid:birth" of the worker that owns the ledger row; a number that grows when rows come or go
--   c<row>:<id>          requests in flight of one worker, as an absolute number: the truth
--   t:<id>               their sum, kept beside so that a choice reads one number per replica; audited every second
--   g:<id> f:<id> r:<id> answers that were good, that failed, that failed since the last good one
--   s:<id>, suspects     a try failed within the last second; there is such a replica
--   b:<pool>             tokens of the retry budget
--
-- A worker that is killed takes nothing with it: its row is subtracted by another worker. Who changes the meaning of a
-- key must change the dictionary's name too, because old workers go on writing during a reload.
local balancer = require "ngx.balancer"
local ffi = require "ffi"
local cjson = require("cjson.safe").new()
cjson.decode_invalid_numbers(false)
ffi.cdef [[int inet_pton(int family, const char *text, void *address);]]

local M = {}
local dict = ngx.shared.llm_lb
local ROWS = 1024         -- workers of all generations that may live at once
local SUSPECT_SECONDS = 1
local START_SHARE = 0.1   -- of a replica that has just returned
local BUSY = -3           -- NGX_BUSY: "no live upstreams", a 502; any other way out of the balancer phase is a 500
local LARGEST = 4194304   -- bytes of a view
local EMPTY = { id = "", peers = {}, pools = {}, gone = {}, slow_start = 0, share = 0, burst = 0 }
local IPV4, IPV6 = 2, 10  -- AF_INET, AF_INET6
local packed = ffi.new("char[16]")

-- The view ------------------------------------------------------------------------------------------------------------

local function number(low, high)
  return function(v) return type(v) == "number" and v >= low and v <= high end
end

local function whole(low, high)
  return function(v) return type(v) == "number" and v >= low and v <= high and v % 1 == 0 end
end

local function text(pattern, length)
  return function(v) return type(v) == "string" and #v <= length and v:find(pattern) ~= nil end
end

local function address(v)
  if type(v) ~= "string" or #v > 45 or v:find("%z") then return false end
  return ffi.C.inet_pton(v:find(":", 1, true) and IPV6 or IPV4, v, packed) == 1
end

local DOCUMENT = {
  id = text("^%x%x%x%x%x%x%x%x%x%x%x%x$", 12),
  version = whole(1, 1),
  slow_start = number(0, 86400),
  retry_percent = number(0, 1000),
  retry_burst = whole(0, 1000000),
  peers = function(v) return type(v) == "table" end,
}
local PEER = {
  id = text("^[%w._/:@+~-]+$", 255),
  pool = text("^%w[%w._-]*$", 64),
  address = address,
  port = whole(1, 65535),
  state = function(v) return v == "up" or v == "down" or v == "drain" end,
  weight = function(v) return type(v) == "number" and v > 0 and v <= 1 end,
  since = number(0, 1e11),
}

local function wrong(rules, found)
  if type(found) ~= "table" then return "is no object" end
  for name, fits in pairs(rules) do
    if not fits(found[name]) then return "has no valid " .. name end
  end
  for name in pairs(found) do
    if not rules[name] then return "has an unknown field" end
  end
end

-- Returns the view that the text describes, or nil and what is wrong with it.
local function parse(json)
  local found = cjson.decode(json)
  local reason = wrong(DOCUMENT, found)
  if reason then return nil, "the view " .. reason end
  local view = { id = found.id, slow_start = found.slow_start, share = found.retry_percent / 100,
    burst = found.retry_burst, peers = {}, pools = {}, known = {} }
  local count = 0
  for _ in pairs(found.peers) do count = count + 1 end
  for n = 1, count do
    local peer = found.peers[n]
    reason = peer == nil and "is no element of a list" or wrong(PEER, peer)
    if reason then return nil, "peer " .. n .. " " .. reason end
    if view.known[peer.id] then return nil, "peer " .. n .. " has the id of an earlier one" end
    view.known[peer.id], view.peers[n] = true, peer
    peer.host = peer.address:find(":", 1, true) and "[" .. peer.address .. "]" or peer.address
    peer.total, peer.suspect, peer.row = "t:" .. peer.id, "s:" .. peer.id, "r:" .. peer.id
    local pool = view.pools[peer.pool] or { up = {}, down = {}, tokens = "b:" .. peer.pool }
    view.pools[peer.pool] = pool
    if peer.state ~= "drain" then table.insert(pool[peer.state], peer) end
  end
  return view
end

local view, view_version = EMPTY, -1

-- Decoded once per version and worker.
local function current()
  local version = dict:get("ver") or 0
  if version ~= view_version then
    view = parse(dict:get("view") or "") or EMPTY
    view.gone = cjson.decode(dict:get("gone") or "[]") or {}
    view_version = version
  end
  return view
end

-- The ledger ----------------------------------------------------------------------------------------------------------

local row, own, rows, rows_version, names = nil, {}, {}, -1, {}

local function cell(r, id)
  local line = names[r]
  if not line then line = {}; names[r] = line end
  local name = line[id]
  if not name then name = "c" .. r .. ":" .. id; line[id] = name end
  return name
end

local function living_rows()
  local version = dict:get("rver") or 0
  if version ~= rows_version then
    rows, rows_version = {}, version
    for r = 1, ROWS do
      if dict:get("w" .. r) then rows[#rows + 1] = r end
    end
  end
  return rows
end

local function inflight(id)
  local sum = 0
  for _, r in ipairs(living_rows()) do sum = sum + (dict:get(cell(r, id)) or 0) end
  return sum
end

local function add(id, change)
  own[id] = math.max(0, (own[id] or 0) + change)
  dict:set(cell(row, id), own[id])
  dict:incr("t:" .. id, change, 0)
end

-- What tells one life of a process number from the next; nil when there is no such process.
local function birth(pid)
  local file = io.open("/proc/" .. pid .. "/stat", "r")
  local line = file and file:read("*a")
  if file then file:close() end
  local state, rest = (line or ""):match("^.*%) (%a) (.*)$")
  if not state or state == "Z" then return nil end
  local field = 3
  for word in rest:gmatch("%S+") do
    field = field + 1
    if field == 22 then return word end
  end
end

local function every_id(f)
  local v = current()
  for _, peer in ipairs(v.peers) do f(peer.id) end
  for _, id in ipairs(v.gone) do f(id) end
end

-- A worker may die between two writes, so a sum may be off. It is mended when it is off by the same twice in a row:
-- a request that comes while we read looks like an error once, but not twice.
local function audit(id)
  local off = (dict:get("t:" .. id) or 0) - inflight(id)
  if off == 0 then return end
  if dict:get("x:" .. id) == off then
    dict:incr("t:" .. id, -off, 0)
    dict:delete("x:" .. id)
  else
    dict:set("x:" .. id, off, 2.5)
  end
end

local function reap(premature)
  if premature or not dict:add("reaping", true, 0.9) then return end
  for _, r in ipairs(living_rows()) do
    local pid, born = (dict:get("w" .. r) or ""):match("^(%d+):(%d+)$")
    if pid and birth(pid) ~= born then
      every_id(function(id)
        local left = dict:get(cell(r, id))
        if left then
          dict:incr("t:" .. id, -left, 0)
          dict:delete(cell(r, id))
        end
      end)
      dict:delete("w" .. r)
      dict:incr("rver", 1, 0)
      dict:incr("reaped", 1, 0)
    end
  end
  every_id(audit)
end

-- Start ---------------------------------------------------------------------------------------------------------------

-- In the master. A reload finds the dictionary as it was; a start reads the agent's last view.
function M.init(path)
  if dict:get("ver") then return end
  dict:set("boot", ngx.now())
  local file, reason = io.open(path, "r")
  local json
  if file then
    json, reason = file:read(LARGEST)
    file:close()
  end
  local found
  if json then found, reason = parse(json) end
  if found then
    dict:set("view", json)
  else
    ngx.log(ngx.WARN, "llm: no view in ", path, " (", reason or "it is empty", "): no replica until the agent sends one")
  end
  dict:set("ver", 1)
end

function M.init_worker()
  local pid = ngx.worker.pid()
  math.randomseed(pid + ngx.now() * 1000)
  local name = pid .. ":" .. assert(birth(pid), "llm: /proc does not show this worker")
  for r = 1, ROWS do
    if dict:add("w" .. r, name) then row = r; break end
  end
  assert(row, "llm: no free row for this worker")
  dict:incr("rver", 1, 0)
  assert(ngx.timer.every(1, reap))
end

-- A request -----------------------------------------------------------------------------------------------------------

local function candidates(v, name)
  local pool = v.pools[name]
  if not pool then return {}, nil end
  return #pool.up > 0 and pool.up or pool.down, pool -- none is up: better a doubtful replica than a certain error
end

-- Grows from the start share to the replica's weight while slow start lasts.
local function share(peer, now, seconds)
  local age = now - peer.since
  if age >= seconds or peer.weight <= START_SHARE then return peer.weight end
  return START_SHARE + (peer.weight - START_SHARE) * math.max(age, 0) / seconds
end

local function suspected(peer) return dict:get(peer.suspect) end

-- Its last answer was a failure, however long ago: good enough for a first try, which may find that it has recovered,
-- and not for the last one.
local function failing(peer) return suspected(peer) or (dict:get(peer.row) or 0) > 0 end

local function least(list, tried, seconds, spared)
  local count, now, best, best_score = #list, ngx.now(), nil, nil
  local start = count > 1 and math.random(count) or 0 -- ties at random
  for n = 1, count do
    local peer = list[(n + start) % count + 1]
    if not tried[peer.id] and not (spared and spared(peer)) then
      local score = (math.max(dict:get(peer.total) or 0, 0) + 1) / share(peer, now, seconds)
      if not best or score < best_score then best, best_score = peer, score end
    end
  end
  return best
end

local function choose(v, list, tried, again)
  local spared = again and failing or dict:get("suspects") and suspected or nil
  return spared and least(list, tried, v.slow_start, spared) or least(list, tried, v.slow_start)
end

local function failed(id)
  dict:incr("f:" .. id, 1, 0)
  dict:incr("r:" .. id, 1, 0)
  dict:set("s:" .. id, true, SUSPECT_SECONDS)
  dict:set("suspects", true, SUSPECT_SECONDS)
end

local function good(id)
  dict:incr("g:" .. id, 1, 0)
  if (dict:get("r:" .. id) or 0) ~= 0 then dict:set("r:" .. id, 0) end
end

-- The replica of the try that ends here, which counts no longer as in flight; nil when there is none.
-- It is in a variable and not in ngx.ctx, which an error page would lose.
local function leave()
  local id = ngx.var.llm_peer
  if id == "" then return nil end
  ngx.var.llm_peer = ""
  add(id, -1)
  return id
end

local function earn(v, pool)
  local tokens = dict:incr(pool.tokens, v.share, v.burst)
  if tokens and tokens > v.burst then dict:incr(pool.tokens, v.burst - tokens) end
end

local function pay(pool)
  local tokens = dict:incr(pool.tokens, -1, 0)
  if tokens and tokens >= 0 then return true end
  dict:incr(pool.tokens, 1, 0)
  return false
end

-- Access phase: an error in the balancer phase would become 500.
function M.admit()
  if #candidates(current(), ngx.var.llm_pool) == 0 then return ngx.exit(503) end
end

-- Balancer phase, once per try. A further try is asked for beforehand, and only if it can be had: so an answer with
-- status 500 that nobody can better reaches the client as it is.
function M.balance()
  local v, ctx = current(), ngx.ctx
  local list, pool = candidates(v, ngx.var.llm_pool)
  local tried, tries = ctx.llm_tried, ctx.llm_tries or 0
  local limit = tonumber(ngx.var.llm_tries) or 1
  if tried then
    local id = leave()
    if id then failed(id) end
    if not pool or tries >= limit or not pay(pool) then return ngx.exit(BUSY) end
  else
    tried = {}
    ctx.llm_tried = tried
    if pool then earn(v, pool) end
  end
  local peer = choose(v, list, tried, tries > 0)
  if not peer then return ngx.exit(BUSY) end
  tries = tries + 1
  tried[peer.id], ctx.llm_tries = true, tries
  if tries < limit and #list > tries and (dict:get(pool.tokens) or 0) >= 1 then balancer.set_more_tries(1) end
  ngx.var.llm_peer = peer.id
  add(peer.id, 1)
  assert(balancer.set_current_peer(peer.host, peer.port))
end

-- Log phase, at the server's level so that it also runs after an error page.
function M.log()
  local id = leave()
  if not id or ngx.var.request_completion ~= "OK" then return end -- the client left
  local status, ending = tonumber((ngx.var.upstream_status or ""):match("(%d+)$")), ngx.var.llm_end
  if not status or status == 499 or status == 503 then return end -- 503: the replica is full, not broken
  if status >= 500 or ending == "" or ngx.var.status == "009" then
    failed(id) -- without an ending the replica died within its answer; 009 is NGINX's status of an answer without one
  elseif ending ~= "error" then
    good(id)
  end
end

local function event(chunk, start)
  return chunk:sub(1, #start) == start or chunk:find("\n" .. start, 1, true)
end

-- Body filter: how the answer ended. done: the stream's own end; error: an error within a stream of status 200;
-- eof: the answer is complete; "": it was cut off.
function M.watch_end()
  local chunk, seen = ngx.arg[1], ngx.var.llm_end
  if seen ~= "" then return end
  if event(chunk, 'data: {"error"') then
    ngx.var.llm_end = "error"
  elseif event(chunk, "data: [DONE]") then
    ngx.var.llm_end = "done"
  elseif ngx.arg[2] then
    ngx.var.llm_end = "eof"
  end
end

-- For the agent -------------------------------------------------------------------------------------------------------

function M.view_id()
  return current().id
end

local function refuse(status, reason)
  ngx.status = status
  ngx.say(cjson.encode({ error = reason }))
end

-- Ids that left the view stay known while they have requests in flight, and one change longer: another worker may be
-- choosing by the former view right now.
local function departed(old, new)
  local gone = {}
  for _, id in ipairs(old.gone) do
    if not new.known[id] then
      if inflight(id) > 0 then
        gone[#gone + 1] = id
      else
        for _, r in ipairs(living_rows()) do dict:delete(cell(r, id)) end
        for kind in ("tgfrsx"):gmatch(".") do dict:delete(kind .. ":" .. id) end
      end
    end
  end
  for _, peer in ipairs(old.peers) do
    if not new.known[peer.id] then gone[#gone + 1] = peer.id end
  end
  return #gone > 0 and cjson.encode(gone) or "[]"
end

local function take(json)
  if not json then return 400, "the body is empty or larger than " .. LARGEST .. " bytes" end
  local new, reason = parse(json)
  if not new then return 400, reason end
  local stored
  stored, reason = dict:safe_set("gone", departed(current(), new))
  if stored then stored, reason = dict:safe_set("view", json) end
  if not stored then return 507, "the shared dictionary: " .. reason end
  dict:incr("ver", 1, 0)
end

local function listed(ids, describe)
  local parts = {}
  for n, id in ipairs(ids) do parts[n] = cjson.encode(describe(id)) end
  return "[" .. table.concat(parts, ",") .. "]" -- by hand, because cjson writes an empty list as an object
end

-- GET: what is in force, in flight and was seen; PUT: the whole view.
function M.admin()
  ngx.header["Content-Type"] = "application/json"
  local method = ngx.req.get_method()
  if method == "PUT" then
    ngx.req.read_body()
    local status, reason = take(ngx.req.get_body_data())
    if status then return refuse(status, reason) end
  elseif method ~= "GET" then
    return refuse(405, "only GET and PUT")
  end
  local v, ids = current(), {}
  for n, peer in ipairs(v.peers) do ids[n] = peer.id end
  local peers = listed(ids, function(id)
    return { id = id, inflight = inflight(id), good = dict:get("g:" .. id) or 0, failed = dict:get("f:" .. id) or 0,
      failed_in_row = dict:get("r:" .. id) or 0 }
  end)
  local gone = listed(v.gone, function(id) return { id = id, inflight = inflight(id) } end)
  local head = cjson.encode({ view = v.id, boot = dict:get("boot"), rows = #living_rows(),
    reaped = dict:get("reaped") or 0 })
  ngx.say(head:sub(1, -2), ',"peers":', peers, ',"gone":', gone, "}")
end

return M
