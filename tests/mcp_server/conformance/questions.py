"""Fixtures that ask their client: in requests of their own (handshake era) or in rounds of one call."""

from collections.abc import Mapping, Sequence
from typing import Any

from mcp import MCPError
from mcp.server.mcpserver import Context, MCPServer
from mcp.shared.message import ServerMessageMetadata
from mcp.types import (
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    ClientCapabilities,
    CreateMessageRequest,
    CreateMessageRequestParams,
    CreateMessageResult,
    ElicitRequest,
    ElicitRequestFormParams,
    InputRequest,
    InputRequiredResult,
    ListRootsRequest,
    SamplingMessage,
    TextContent,
)

Rounds = Sequence[Mapping[str, InputRequest]]


def elicitation(message: str, **properties: Mapping[str, Any]) -> ElicitRequest:
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return ElicitRequest(params=ElicitRequestFormParams(message=message, requested_schema=schema))


def sampling(prompt: str) -> CreateMessageRequest:
    message = SamplingMessage(role="user", content=TextContent(type="text", text=prompt))
    return CreateMessageRequest(params=CreateMessageRequestParams(messages=[message], max_tokens=100))


TEXT = {"type": "string"}
NAME = elicitation("What is your name?", name=TEXT)
CONFIRM = elicitation("Please confirm", ok={"type": "boolean"})
ROOTS = ListRootsRequest()
LEVELS = [{"const": "low", "title": "Low"}, {"const": "high", "title": "High"}]

STATELESS_ROUNDS: Mapping[str, Rounds] = {
    "elicitation": [{"user_name": NAME}],
    "sampling": [{"capital_question": sampling("What is the capital of France?")}],
    "list_roots": [{"client_roots": ROOTS}],
}
STATEFUL_ROUNDS: Mapping[str, Rounds] = {
    "request_state": [{"confirm": CONFIRM}],
    "tampered_state": [{"confirm": CONFIRM}],
    "multiple_inputs": [
        {"user_name": NAME, "greeting": sampling("Generate a greeting"), "client_roots": ROOTS}
    ],
    "multi_round": [{"step1": NAME}, {"step2": elicitation("What is your favorite color?", color=TEXT)}],
    "capabilities": [{"name": NAME, "greeting": sampling("Generate a greeting")}],
}

FORMS: Mapping[str, ElicitRequest] = {
    "test_elicitation_sep1034_defaults": elicitation(
        "All kinds of defaults",
        name={"type": "string", "default": "John Doe"},
        age={"type": "integer", "default": 30},
        score={"type": "number", "default": 95.5},
        status={"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
        verified={"type": "boolean", "default": True},
    ),
    "test_elicitation_sep1330_enums": elicitation(
        "All kinds of choices",
        untitledSingle={"type": "string", "enum": ["a", "b", "c"]},
        titledSingle={"type": "string", "oneOf": LEVELS},
        untitledMulti={"type": "array", "items": {"type": "string", "enum": ["a", "b", "c"]}},
        titledMulti={"type": "array", "items": {"anyOf": LEVELS}},
        legacyEnum={"type": "string", "enum": ["a", "b"], "enumNames": ["First", "Second"]},
    ),
}


def add_questions(server: MCPServer[Any]) -> None:
    for kind, rounds in STATELESS_ROUNDS.items():
        _add_asking_tool(server, kind, rounds, stateful=False)
    for kind, rounds in STATEFUL_ROUNDS.items():
        _add_asking_tool(server, kind, rounds, stateful=True)
    for name, form in FORMS.items():
        _add_form_tool(server, name, form)
    _add_requesting_tools(server)

    @server.prompt()
    async def test_input_required_result_prompt(ctx: Context[Any]) -> str | InputRequiredResult:
        """Asks one question, then gives its text."""
        question = elicitation("What context should the prompt use?", context=TEXT)
        return _next_question([{"user_context": question}], ctx, stateful=False) or "Thank you."


def _add_asking_tool(server: MCPServer[Any], kind: str, rounds: Rounds, *, stateful: bool) -> None:
    name = f"test_input_required_result_{kind}"

    @server.tool(name=name, description="Asks before it answers.", structured_output=False)
    async def tool(ctx: Context[Any]) -> str | InputRequiredResult:
        return _next_question(rounds, ctx, stateful=stateful) or "Thank you."


def _next_question(rounds: Rounds, ctx: Context[Any], *, stateful: bool) -> InputRequiredResult | None:
    """The state is the number of the round; the SDK seals it. Only what the client declared is asked for."""
    current = int(ctx.request_state or 0)
    if rounds[current].keys() <= (ctx.input_responses or {}).keys():
        current += 1
    if current == len(rounds):
        return None
    asked = {key: question for key, question in rounds[current].items() if _declared(question, ctx)}
    return InputRequiredResult(input_requests=asked, request_state=str(current) if stateful else None)


def _declared(question: InputRequest, ctx: Context[Any]) -> bool:
    can = ctx.client_capabilities or ClientCapabilities()
    match question:
        case ElicitRequest():
            return can.elicitation is not None
        case CreateMessageRequest():
            return can.sampling is not None
        case ListRootsRequest():
            return can.roots is not None


def _add_form_tool(server: MCPServer[Any], name: str, form: ElicitRequest) -> None:
    assert isinstance(form.params, ElicitRequestFormParams)
    params = form.params

    @server.tool(name=name, description="Shows a form.")
    async def tool(ctx: Context[Any]) -> str:
        reply = await ctx.session.elicit_form(params.message, params.requested_schema, ctx.request_id)
        return f"action={reply.action}, content={reply.content}"


def _add_requesting_tools(server: MCPServer[Any]) -> None:
    @server.tool()
    async def test_elicitation(message: str, ctx: Context[Any]) -> str:
        """Asks the user."""
        schema = {"type": "object", "properties": {"username": TEXT, "email": TEXT}}
        reply = await ctx.session.elicit_form(message, schema, ctx.request_id)
        return f"action={reply.action}, content={reply.content}"

    @server.tool()
    async def test_sampling(prompt: str, ctx: Context[Any]) -> str:
        """Asks the client's model."""
        related = ServerMessageMetadata(related_request_id=ctx.request_id)
        reply = await ctx.session.send_request(sampling(prompt), CreateMessageResult, metadata=related)
        return f"LLM response: {reply.content}"

    @server.tool()
    async def test_missing_capability(ctx: Context[Any]) -> str:
        """Works only for clients with a model."""
        if not _declared(sampling(""), ctx):
            raise MCPError(
                code=MISSING_REQUIRED_CLIENT_CAPABILITY,
                message="This tool asks the client's model.",
                data={"requiredCapabilities": {"sampling": {}}},
            )
        return "ok"
