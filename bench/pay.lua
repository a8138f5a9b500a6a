-- wrk script: single payments with random transaction ids, over the loans and tokens of load.lua.
-- LEDGERD_LOANS=1 sends all of them to one loan. LEDGERD_SEED chooses loans and tokens, else chance does.
-- Transaction ids are of their own in every run and thread, also in runs of one second.
local load = dofile(os.getenv("LEDGERD_LOAD"))
local loans = tonumber(os.getenv("LEDGERD_LOANS") or #load.loans)
local threads = {}
sent = 0 -- global, so that `done` can read it from each thread

local function chance()
   local file = assert(io.open("/dev/urandom", "rb"))
   local a, b, c, d = file:read(4):byte(1, 4)
   file:close()
   return ((a * 256 + b) * 256 + c) * 256 + d
end

local run = string.format("%08x", chance())
math.randomseed(tonumber(os.getenv("LEDGERD_SEED") or chance()))

setup = function(thread)
   table.insert(threads, thread)
end

request = function()
   sent = sent + 1
   local body = string.format(
      '{"loan_id":"%s","amount":"1.00","transaction_id":"%08x-%s-%d"}',
      load.loans[math.random(loans)], math.random(2 ^ 31), run, sent)
   return wrk.format("POST", "/api/make-payment/", {
      ["Content-Type"] = "application/json",
      ["Authorization"] = "Bearer " .. load.tokens[math.random(#load.tokens)],
   }, body)
end

done = function(summary, latency, requests)
   local errors, all = summary.errors, -1 -- wrk asks for one request before it starts, and sends it nowhere
   for _, thread in ipairs(threads) do
      all = all + thread:get("sent")
   end
   io.write(string.format(
      'LEDGERD {"requests": %d, "seconds": %.3f, "p50_ms": %.2f, "p99_ms": %.2f, "p999_ms": %.2f, ' ..
      '"sent": %d, "refused": %d, "broken": %d}\n',
      summary.requests, summary.duration / 1e6, latency:percentile(50) / 1000, latency:percentile(99) / 1000,
      latency:percentile(99.9) / 1000, all, errors.status,
      errors.connect + errors.read + errors.write + errors.timeout))
end
