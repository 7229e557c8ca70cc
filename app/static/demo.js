// The demo page: one group, taken from the URL (?group=), and what the client knows of its connection.
import { connect } from "./shards.js";

const show = (id, text) => (document.getElementById(id).textContent = text);
const group = new URLSearchParams(location.search).get("group") ?? "lobby";
const messages = document.getElementById("messages");
let connects = 0;

function add(text, kind = "") {
  const item = document.createElement("li");
  item.textContent = text;
  item.className = kind;
  messages.append(item);
  while (messages.children.length > 200) messages.firstChild.remove();
  messages.scrollTop = messages.scrollHeight;
}

const complain = (error) => add(`${error.code}: ${error.message}`, "notice");

const client = connect("/ws/", {
  online: (welcome) => {
    show("state", "online");
    show("replica", welcome.replica);
    show("reconnects", connects++);
  },
  offline: () => show("state", "offline, coming back"),
  error: complain,
});

client.subscribe(group, {
  subscribed: (frame) => {
    show("offset", frame.offset);
    if (frame.recovered) add("resumed: nothing missed", "notice");
  },
  message: (frame) => {
    show("offset", frame.offset);
    add(String(frame.data?.text ?? JSON.stringify(frame.data)));
  },
  gap: () => add("some history is gone", "notice"),
});

show("group", group);
document.getElementById("drop").onclick = () => client.drop();
document.getElementById("talk").onsubmit = (event) => {
  event.preventDefault();
  client.publish(group, { text: event.target.text.value }).catch(complain);
  event.target.reset();
};
