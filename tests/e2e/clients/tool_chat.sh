# The sample requests of `tool_chat`, as its page has them, but for the agent's id in the place of `{id}`.
curl -X POST https://your-domain.com/api/agents/$AGENT/chat \
-H "Content-Type: application/json" \
-d '{"message": "Hello!"}'
curl -X POST https://your-domain.com/api/agents/$AGENT/chat \
-H "Content-Type: application/json" \
-d '{
"message": "What is my order status?",
"context": {
"customer_id": "cust-123",
"order_id": "order-456"
}
}'
