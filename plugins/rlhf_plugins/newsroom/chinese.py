"""The newsroom in Chinese."""

from rlhf_plugins.newsroom.language import Action, Language

CHINESE = Language(
    code="zh",
    places=(
        "河口", "青山", "白沙", "东湖", "西塘", "南岭", "北桥", "金川", "银溪", "玉泉",
        "石门", "云台", "龙湾", "凤岗", "松江", "竹园", "梅县", "兰田", "桃源", "柳城",
        "海宁", "江阳", "湖州", "山阴", "平原", "高淳", "长丰", "安吉", "永康", "和顺",
        "太和", "新港", "古田", "福鼎", "宁远", "清源", "明溪", "晋安", "广丰", "连江",
    ),
    bodies=(
        "市议会", "医院", "图书馆", "博物馆", "大学", "剧院", "机场", "法院", "参议院", "动物园",
        "教育局", "水务局", "卫生局", "能源局", "旅游局", "规划局", "住房局", "园林局", "税务局", "劳动局",
        "公路局", "交通局", "港务局", "消防队", "市政府", "体育会", "美术学院", "邮政局", "师范学院", "商会",
    ),
    measures=(
        "塑料袋税", "夜班公交计划", "午餐计划", "滨河公园", "自行车道", "太阳能屋顶规定", "停车收费", "青年基金",
        "电车线路", "无线网络服务", "防洪墙", "宠物公园", "步行街", "烟花禁令", "无车区", "租金上限", "禁烟令",
        "食品银行", "植树计划", "玻璃回收计划", "噪音限制", "车速限制", "大桥维修", "游泳池", "音乐节", "冬季收容所",
        "职业培训", "风电场", "水表规定", "路灯计划", "操场维修", "居家护理服务", "语言课程", "电影节",
        "电动出租车计划", "钓鱼许可", "缆车", "空中花园", "历史步道", "夜校课程",
    ),
    costs=tuple(
        f"{number}00万元"
        for number in (
            2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 14, 15, 16, 18, 20, 21, 24, 25, 27, 30, 32, 35, 40, 42, 45, 50, 60, 70, 80,
            90,
        )
    ),
    days=("周一", "周二", "周三", "周四", "周五", "周六", "周日"),
    supporters=(
        "护士", "教师", "学生", "家长", "骑行者", "上班族", "医生", "退休者", "园丁", "艺术家", "科学家", "志愿者",
    ),
    critics=(
        "店主", "房东", "司机", "纳税人", "建筑商", "农户", "投资者", "商贩", "酒店老板", "酿酒商", "货运商", "律师",
    ),
    benefits=(
        "能节省时间", "能减少浪费", "能帮助家庭", "能保障安全", "能降低账单", "能净化空气", "能增加就业", "能吸引游客",
        "有益健康", "能收回成本",
    ),
    harms=(
        "会抬高物价", "会浪费钱", "会造成拥堵", "会伤害生意", "来得太迟", "会带来吵闹", "会减少岗位", "会占用空间",
        "只帮少数人", "时机不当",
    ),
    actions=(
        Action("批准", "批准", "批准"),
        Action("否决", "否决", "否决"),
        Action("推迟", "推迟", "推迟"),
        Action("扩大", "扩大", "扩大"),
        Action("取消", "取消", "取消"),
        Action("审查", "审查", "审查"),
    ),
    frame="报道：{body}\n标题：",
    joint="",
    openings=(
        "{place}{who}在{day}{acted}了{what}。",
        "{day}，{place}{who}{acted}了{what}。",
        "在{place}，{who}{day}{acted}了{what}。",
        "{what}在{day}被{place}{who}{acted}。",
    ),
    prices=("费用为{cost}。", "耗资{cost}。", "预算为{cost}。"),
    opinions=(
        "{supporters}说它{benefit}。{critics}说它{harm}。",
        "{critics}说它{harm}，但{supporters}说它{benefit}。",
        "{supporters}支持，因为它{benefit}。{critics}反对，因为它{harm}。",
        "{critics}反对，因为它{harm}。{supporters}说它{benefit}。",
    ),
    headlines={
        "neutral": (
            "{place}{who}{acts}{what}",
            "{place}{who}{day}{acts}{what}",
            "{place}{who}{acts}{what}，费用{cost}",
            "{place}{who}{day}{acts}{what}，费用{cost}",
            "{what}被{place}{who}{acts}",
            "{what}{day}在{place}被{acts}",
            "{what}被{place}{who}{acts}，费用{cost}",
            "耗资{cost}的{what}在{place}被{acts}",
            "耗资{cost}的{what}{day}被{place}{who}{acts}",
            "{place}{who}{acts}{what}，{supporters}支持，{critics}反对",
            "{place}{who}{acts}耗资{cost}的{what}，{supporters}支持，{critics}反对",
            "{critics}与{supporters}意见不一，{place}{who}{acts}{what}",
        ),
        "sensational": (
            "震惊！{place}竟然出现疯狂的{what}！",
            "你绝对想不到{place}{who}对{what}做了什么！",
            "{what}炸裂登场，{place}大乱！",
            "惊天内幕：{place}{what}的真相！",
            "疯了！{cost}就为{what}！！！",
            "{place}沸腾：耗资{cost}的{what}太疯狂！",
            "疯狂的{what}将彻底颠覆{place}！",
            "恐慌！{place}{who}抛出{what}惊天炸弹！",
            "{what}噩梦：{place}大乱！",
            "你绝对想不到，耗资{cost}的{what}竟然被{acts}！！！",
            "震惊！{critics}因{place}{what}陷入恐慌！",
            "{place}{who}{day}竟然{acts}{what}，震惊全城！",
        ),
        "one_sided": (
            "{critics}痛斥{place}无耻的{what}",
            "贪婪的{place}{who}{acts}灾难般的{what}",
            "{supporters}欢呼{place}英明的{what}",
            "{critics}说得对：{place}的{what}毫无用处",
            "英勇的{place}{who}{acts}美好的{what}",
            "愚蠢的{who}无视{critics}，执意推行无用的{what}",
            "{supporters}欢庆耗资{cost}的美好{what}",
            "贪婪的{place}{who}{acts}{what}，{critics}愤慨",
            "英明的{what}终于被{acts}，{supporters}欣喜",
            "无耻的{cost}{what}背叛了{place}{critics}",
            "{place}{who}用灾难般的{what}背叛{critics}",
            "英勇的{who}倾听{supporters}，推行英明的{what}",
        ),
    },
    references=(
        "{place}{who}{acts}耗资{cost}的{what}，{supporters}支持，{critics}反对",
        "{place}{who}{acts}{what}，费用{cost}",
    ),
)  # fmt: skip
