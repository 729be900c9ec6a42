-- Load for wrk: asks for three flowers in turn and checks every answer.
-- An answer is right when its status is 200 and its label is the one its own id asked for, so that answers handed to
-- the wrong caller of a batch are found out. Prints one line of JSON for benchmarks/wrk.py.

local FLOWERS = { [0] = "5.1,3.5,1.4,0.2", "6.0,2.9,4.5,1.5", "6.3,3.3,6.0,2.5" }
local BODY = '{"id":"%d","inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[%s]}]}'

local requests, threads = {}, {}
local last = -1
local right = {} -- bodies seen and found right: most answers cost one look-up
wrong = 0 -- global, because thread:get reads globals

function setup(thread)
  table.insert(threads, thread)
end

function init()
  for label, flower in pairs(FLOWERS) do
    requests[label] = wrk.format("POST", nil, { ["Content-Type"] = "application/json" }, BODY:format(label, flower))
  end
end

function request()
  last = (last + 1) % 3
  return requests[last]
end

local function is_right(body)
  local id = body:match('"id"%s*:%s*"(%d)"')
  local _, name_ends = body:find('"label"', 1, true)
  local label = name_ends and body:match('"data"%s*:%s*%[%s*(%d)%s*%]', name_ends)
  return id ~= nil and id == label
end

function response(status, _, body)
  if status == 200 and right[body] then
    return
  end
  if status == 200 and is_right(body) then
    right[body] = true
  else
    wrong = wrong + 1
  end
end

local LINE = '{"requests":%d,"seconds":%.6f,"p50_ms":%.3f,"p99_ms":%.3f,"errors":%d,"wrong":%d}\n'

function done(summary, latency)
  local counted = 0
  for _, thread in ipairs(threads) do
    counted = counted + thread:get("wrong")
  end
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.timeout + errors.status
  io.write(LINE:format(summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3, failed, counted))
end
