-- wrk script: single payments with random transaction ids, over the loans and tokens of load.lua.
-- LEDGERD_LOANS=1 sends all of them to one loan.
local load = dofile(os.getenv("LEDGERD_LOAD"))
local loans = tonumber(os.getenv("LEDGERD_LOANS") or #load.loans)
local sent = 0
math.randomseed(os.time())
local run = string.format("%08x", math.random(2 ^ 31))

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
   local errors = summary.errors
   io.write(string.format(
      'LEDGERD {"requests": %d, "seconds": %.3f, "p50_ms": %.2f, "p99_ms": %.2f, "refused": %d, "broken": %d}\n',
      summary.requests, summary.duration / 1e6, latency:percentile(50) / 1000, latency:percentile(99) / 1000,
      errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
