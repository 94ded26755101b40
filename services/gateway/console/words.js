"use strict";
// One page, no library, nothing from elsewhere. What a model says is only ever set as text, never as HTML.
const WORDS = {
  en: { key: "API key", model: "model", temperature: "temperature", longest: "max_tokens", clear: "new chat", send: "send",
        stop: "stop", ask: "Ask something. Enter sends, Shift+Enter begins a line.", needKey: "Type an API key first (`make run` prints one).", badKey: "This API key is not accepted.",
        ready: "ready", notReady: "not ready", first: "first token", rate: "tokens/s", tokens: "tokens", thoughts: "thoughts", again: "connection lost, coming back",
        queue: "Queue", band: "band", waiting: "waiting", running: "running", granted: "granted", refused: "refused", engines: "Engines",
        engine: "engine", learnt: "depth", load: "running", slots: "slots", borrowed: "borrowed", saturation: "saturation",
        gateway: "Gateways of this host", door: "gateway", cache: "cache", hitsEach: "hits/s", away: "away", inProgress: "in progress", done: "completed", failed: "not completed", hits: "cache hits", ttft: "mean first token",
        hidden: "Live figures need a key with the permission `metrics` when you are not on the host itself." },
  zh: { key: "API 密钥", model: "模型", temperature: "温度", longest: "max_tokens", clear: "新对话", send: "发送", stop: "停止",
        ask: "输入问题。回车发送，Shift+回车换行。", needKey: "请先输入 API 密钥（`make run` 会打印一个）。", badKey: "此 API 密钥无效。", ready: "就绪", notReady: "未就绪",
        first: "首词元", rate: "词元/秒", tokens: "词元", thoughts: "思考过程", again: "连接中断，正在续接", queue: "队列", band: "优先级带", waiting: "等待", running: "运行",
        granted: "已授予", refused: "已拒绝", engines: "引擎", engine: "引擎", learnt: "深度", load: "运行", slots: "槽位", borrowed: "借出",
        saturation: "饱和度", gateway: "本机网关", door: "网关", cache: "缓存", hitsEach: "命中/秒", away: "离线", inProgress: "进行中", done: "完成", failed: "未完成", hits: "缓存命中", ttft: "首词元平均",
        hidden: "不在本机时，实时数据需要带 `metrics` 权限的密钥。" },
};
const say = WORDS[(navigator.language || "en").toLowerCase().startsWith("zh") ? "zh" : "en"];
